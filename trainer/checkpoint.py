"""Checkpoints: everything a resume needs, in files that appear whole or not at all."""

from pathlib import Path
from typing import Any

import torch

from edgegan._files import atomic_write
from edgegan.errors import RunError

KEEP = 2
KEYS = {"nimg", "nets", "optimizers", "seconds", "sums", "counts", "since"}


def save(folder: Path, nimg: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint of `nimg` images, flushed to the disk, then delete all but the newest two."""
    path = folder / f"{nimg:012d}.pt"
    with atomic_write(path, durable=True) as file:
        torch.save({**state, "nimg": nimg}, file)
    for old in found(folder)[:-KEEP]:
        old.unlink()
    return path


def found(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first; their names are the images shown."""
    return sorted(folder.glob("[0-9]*.pt"))


def load(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read one checkpoint; tensors and plain values only, never code. Raises RunError if it is damaged."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception:  # torch raises a dozen kinds for a damaged file
        state = None
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise RunError(f"checkpoint {path} is damaged or cut short; delete it to go back to the one before")
    return state
