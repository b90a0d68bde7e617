"""What several test files need to run commands and training."""

import subprocess
import sys
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


def command(*args: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a console script as a user would."""
    return subprocess.run([BIN / str(args[0]), *map(str, args[1:])], capture_output=True, text=True, **how)


class Silent:
    """A Reporter that shows nothing; called, it asks for a stop after some images."""

    def __init__(self, stop_at: int = 10**9) -> None:
        self.nimg, self.stop_at = 0, stop_at

    def advance(self, nimg: int) -> None:
        self.nimg = nimg

    def record(self, record: dict[str, Any]) -> None:
        pass

    def __call__(self) -> bool:
        return self.nimg >= self.stop_at
