"""Who does the sampling work: the C core, or NumPy with the same answers.

`core` is edgegan.core._core or edgegan._pure, which have the same functions (but for instruction_set, which only C
has); NAME is "c" or "python". Callers ask for `_backend.core` at each call, so that a test can put the other one in
its place.
"""

import importlib
import os
from types import ModuleType

from edgegan.errors import BackendError


def _load() -> tuple[ModuleType, str]:
    """The C core, unless NumPy was chosen: now, by the variable, or when installing, by not building it."""
    if os.environ.get("EDGEGAN_PUREPYTHON") != "1":
        try:
            return importlib.import_module("edgegan.core._core"), "c"
        except ModuleNotFoundError:
            pass  # an install without a C compiler fails unless NumPy was chosen, so this is by choice
        except ImportError as error:
            raise BackendError(
                f"edgegan's C core does not load ({error}): reinstall edgegan for this Python and processor, "
                "or set EDGEGAN_PUREPYTHON=1 to use NumPy, which is slower and gives the same numbers"
            ) from error
    return importlib.import_module("edgegan._pure"), "python"


core, NAME = _load()
