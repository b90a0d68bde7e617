"""Checkpoints: everything a resume needs, in files that appear whole or not at all and prove that they are whole.

A file is torch's own format, so `torch.load(path, weights_only=True)` reads it too; one of its entries is a digest of
all others. Writing happens in a thread: training halts only while the state is copied.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from edgegan._files import atomic_write
from edgegan.errors import RunError

KEEP = 2
BEST = "best.pt"
FORMAT = 2


class DamagedError(RunError):
    """A checkpoint that is not what was written."""


def found(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first; their names are the images shown."""
    return sorted(folder.glob("[0-9]*.pt"))


def load(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read one checkpoint; tensors and plain values only, never code.

    Raises DamagedError, or RunError for one of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        if "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        state = None
    if isinstance(state, dict) and state.get("format", FORMAT) != FORMAT:
        raise RunError(f"checkpoint {path} is of another edgegan (format {state['format']}); go on with that")
    if not isinstance(state, dict) or state.pop("digest", None) != digest_of(state):
        raise DamagedError(f"checkpoint {path} is damaged or cut short; delete it to go back to the one before")
    moved = _mapped(state, lambda tensor: tensor.to(device))
    assert isinstance(moved, dict)
    return moved


def digest_of(state: Any) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes of a state: nested dicts and lists of tensors and numbers."""
    digest = hashlib.sha256()
    for path, value in _leaves(state, ""):
        if isinstance(value, Tensor):
            digest.update(f"{path}\0{value.dtype}\0{list(value.shape)}\0".encode())
            flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
        else:
            digest.update(f"{path}\0{value!r}\0".encode())
    return digest.hexdigest()


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in sorted(value, key=repr):
            yield from _leaves(value[key], f"{path}/{key!r}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}/{i}")
    else:
        yield path, value


def _mapped(value: Any, function: Any) -> Any:
    """The same nest with `function` of each tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, function) for item in value)
    return value


def _copied(tensor: Tensor) -> Tensor:
    """A copy on the CPU that later steps do not change."""
    return tensor.detach().cpu() if tensor.device.type != "cpu" else tensor.detach().clone()


class Writer:
    """Writes checkpoints into a folder, one at a time, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(self, nimg: int, state: dict[str, Any], *, best: bool = False) -> None:
        """Copy the state and begin to write it; what went wrong with the one before is raised here.

        best: it also becomes best.pt. Of the others the newest two stay.
        """
        self.wait()
        copied = _mapped({**state, "nimg": nimg, "format": FORMAT}, _copied)
        self._pending = self._pool.submit(write, self.folder, nimg, copied, best)

    def wait(self) -> None:
        """Until the last one is on the disk. Raises OSError if the disk refused it."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Wait, and let the thread go; an error is raised after that."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()


def write(folder: Path, nimg: int, state: dict[str, Any], best: bool = False) -> None:
    """Write one checkpoint, flushed to the disk; only then delete all but the newest two."""
    path = folder / f"{nimg:012d}.pt"
    with atomic_write(path, durable=True) as file:
        told = _Told(file)
        try:
            torch.save({**state, "digest": digest_of(state)}, cast(IO[bytes], told))
        except RuntimeError:
            if told.error is not None:
                raise told.error from None
            raise
    if best:
        make_best(path)
    # Those that are newer are damaged ones that were passed over, or of the time before the run went back.
    names = found(folder)
    place = names.index(path)
    for other in (*names[: max(0, place + 1 - KEEP)], *names[place + 1 :]):
        other.unlink()


class _Told:
    """A file to write to that remembers the disk's error, which torch turns into one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def make_best(path: Path) -> None:
    """Make best.pt another name of the checkpoint at `path`, or a copy where a file cannot have two names."""
    target = path.with_name(BEST)
    if target.exists() and target.samefile(path):
        return
    temporary = target.with_name(f".edgegan-{os.urandom(8).hex()}.tmp")
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        with atomic_write(target, durable=True) as file:
            file.write(path.read_bytes())
        return
    os.replace(temporary, target)
