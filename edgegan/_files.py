"""Output files that appear whole or not at all."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgegan.errors import ArgumentError

try:
    import fcntl
except ImportError:  # Windows: two processes at one file are not noticed there
    fcntl = None  # type: ignore[assignment]

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
    with os.scandir(folder) as entries:  # not glob, which holds the names of a million files at once
        found = [entry.path for entry in entries if entry.name.startswith(".edgegan-") and entry.name.endswith(".tmp")]
    for path in found:
        with suppress(FileNotFoundError):
            os.unlink(path)


def write_all(handle: int, data: bytes) -> None:
    """Write all of `data` to an open file, or raise OSError."""
    done = os.write(handle, data)
    while done < len(data):  # a nearly full disk takes a part, and says why at the next call
        done += os.write(handle, data[done:])


def write_whole(temporary: str | bytes, path: str | bytes, data: bytes) -> None:
    """As `atomic_write`, for files by the thousand: a folder that was checked, and the fewest system calls."""
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            write_all(handle, data)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


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
    temporary = os.path.join(folder, f".edgegan-{os.urandom(8).hex()}.tmp")
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


@contextmanager
def resumable_write(path: str | os.PathLike[str], key: str, least: int | None) -> Iterator[BinaryIO]:
    """As `atomic_write`, but a killed process's part is what the next one with the same `key` is given.

    key: all that decides the content. It makes the hidden name of the part beside `path`. least: if the block raises,
    a part of at least so many bytes stays; None, none does. The file may be read, to see what is there. Raises
    ArgumentError as `check_output` and while another process writes the same, and OSError if the disk refuses.
    """
    check_output(path)
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    digest = hashlib.sha256(os.fsencode(name) + b"\0" + key.encode()).hexdigest()[:32]
    partial = os.path.join(folder, f".edgegan-{digest}.part")
    file = _open_locked(partial, os.fsdecode(path))
    try:
        try:
            yield file
            file.flush()
            with suppress(FileNotFoundError):
                os.chmod(partial, stat.S_IMODE(os.stat(target).st_mode))
            if fcntl is None:
                file.close()  # Windows renames no open file
            os.replace(partial, target)  # while it is locked: see _open_locked
        except BaseException as error:
            with suppress(OSError):
                if least is None or os.stat(partial).st_size < least:
                    os.unlink(partial)
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                error.filename = os.fsdecode(path)
            raise
    finally:
        with suppress(OSError):  # what it could not write before
            file.close()


def _open_locked(path: str, shown: str) -> BinaryIO:
    """The file at `path`, made if need be, that no other process has: the system lets go however a process ends."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        file: BinaryIO = os.fdopen(os.open(path, flags, 0o666), "r+b")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held the lock until now may have renamed or removed it: then what we hold is no longer at `path`.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except BlockingIOError:
            file.close()
            raise ArgumentError(
                f"cannot write {shown}: another process is drawing the same into it; wait for it or name another"
            ) from None
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks
            return file
        file.close()


@contextmanager
def shared_folder(folder: str | os.PathLike[str], *below: str) -> Iterator[None]:
    """While the block runs, others know that somebody writes here; if nobody did, what killed ones left is swept.

    below: folders in it that are swept too, if they are there.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # somebody else is at work here, or it is a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for one in (folder, *below):
                with suppress(FileNotFoundError):
                    sweep_temporaries(one)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)
