"""What several test files need to run commands and training."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BIN = Path(sys.executable).parent
RNG = np.random.default_rng(0)


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


def random_picture(h: int = 8, w: int = 8, c: int = 3) -> np.ndarray:
    """uint8 [h, w, c], or [h, w] if c is 1."""
    return RNG.integers(0, 256, (h, w, c) if c > 1 else (h, w), np.uint8)


def save_picture(path: Path, array: np.ndarray | None = None, **options: Any) -> Path:
    """Write a picture, random unless given, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_picture() if array is None else array).save(path, **options)
    return path
