"""A folder of pictures that says what they are, so that the same command goes on in it and no others mix in."""

import json
import os
from contextlib import suppress
from typing import Any

from edgegan._files import atomic_write
from edgegan.errors import ArgumentError

_MAX_BYTES = 2**24  # of a manifest


def enter(folder: str, manifest: str, identity: dict[str, Any]) -> bool:
    """See that the folder is for pictures of this identity, or make it so. Returns whether some may be there already.

    manifest: the name of the file in it that holds the identity. Raises ArgumentError for a folder that holds anything
    else.
    """
    found = _read(folder, manifest)
    if found is None:
        with os.scandir(folder) as entries:
            other = next((entry.name for entry in entries if not entry.name.startswith(".")), None)
        found = _read(folder, manifest)  # once more: another shard may have come between
        if found is None and other is not None:
            raise ArgumentError(f"cannot write into {folder}: it holds other files ({other}); name a new folder")
    if found is None and _claim(folder, manifest, identity):
        return False
    found = found or _read(folder, manifest) or {}
    differences = [
        f"{name} {_shown(found.get(name))}, not {_shown(value)}"
        for name, value in identity.items()
        if found.get(name) != value
    ]
    if differences:
        raise ArgumentError(
            f"cannot write into {folder}: its {manifest} says {'; '.join(differences)}; name another folder"
        )
    return True


def _shown(value: object) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 20 else f"{text[:17]}..."


def _read(folder: str, manifest: str) -> dict[str, Any] | None:
    path = os.path.join(folder, manifest)
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ArgumentError(f"cannot write into {folder}: its {manifest} is not of edgegan; name another folder")
    return found


def _claim(folder: str, manifest: str, identity: dict[str, Any]) -> bool:
    """Write the manifest, whole, unless there is one by now. Returns whether this process did."""
    path = os.path.join(folder, manifest)
    temporary = os.path.join(folder, f".edgegan-{os.urandom(8).hex()}.tmp")
    with atomic_write(temporary) as file:
        file.write(json.dumps(identity, indent=1).encode() + b"\n")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    return True
