"""Output files that appear whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgegan.errors import ArgumentError

_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise ArgumentError unless a file can be written at `path`: call it before the work, not after."""
    target = Path(os.path.realpath(path))
    folder, shown = target.parent, os.fsdecode(path)
    if not folder.is_dir():
        raise ArgumentError(f"cannot write {shown}: the folder {folder} does not exist; create it first")
    if target.is_dir():
        raise ArgumentError(f"cannot write {shown}: it is a folder; name a file in it")
    if target.exists() and not target.is_file():
        # A rename over a device or a pipe would replace it by a plain file.
        raise ArgumentError(f"cannot write {shown}: it is not a regular file; name another")
    if not os.access(folder, os.W_OK):
        raise ArgumentError(f"cannot write {shown}: no permission to write in the folder {folder}")


def sweep_temporaries(folder: str | os.PathLike[str]) -> None:
    """Remove what processes killed in the middle of `atomic_write` left in `folder`; only if nobody writes there."""
    for path in Path(folder).glob(".edgegan-*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and vanishes when it raises.

    It is written beside `path` (beside its target if that is a link) and renamed, so that a reader, a full
    disk or a kill sees the old file or the new one, never a part. `durable` also survives a power cut: file
    and folder are flushed to the disk. Raises ArgumentError as `check_output`, and OSError if the disk
    refuses.
    """
    check_output(path)
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    # Not derived from the target's name, which may have the greatest length already. Not tempfile: its files
    # are private to the user, and the rename would keep that.
    temporary = os.path.join(folder, f".edgegan-{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))  # a replaced file keeps its mode
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            error.filename = os.fsdecode(path)  # a failed write does not say of which file
        raise
    if durable and os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
