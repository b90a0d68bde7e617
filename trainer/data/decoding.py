"""Many pictures: decoded in order on every core, with a bounded number of them in memory.

Pillow lets go of the interpreter lock while it decodes, but a small picture is mostly Python's work, and threads that
hand the lock to and fro are slower than one alone. So large sets are decoded in processes. These are plain
subprocesses rather than those of `multiprocessing`, which import the caller's main module again (a script without
`if __name__ == "__main__"` would start itself over) or fork a process that has threads.
"""

import os
import pickle
import subprocess
import sys
import warnings
import zlib
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegan.trainer.data import pictures

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PROCESSES_FROM = 2000  # pictures; fewer are decoded before processes have started
_TOO_LARGE = f"larger than {pictures.MAX_BYTES >> 20} MiB"
_LOCAL_HEADER = 30  # bytes of it before the name of a zip's member
# -P: a pickle.py in the current folder is not imported. What a library prints must not come between the results.
_START = """
import os, pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
results = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
from edgegan.trainer.data.decoding import work
work(sys.stdin.buffer, results)
"""


class Blob(NamedTuple):
    """Where the bytes of one picture lie."""

    path: str  # of the file, or of the archive around it
    offset: int = 0
    size: int = -1  # in bytes, as stored; -1: up to the end
    crc: int = -1  # CRC-32 of a zip's member, `offset` being that of its local header; -1: not in a zip
    deflated: bool = False


@dataclass(frozen=True)
class Task:
    items: list[Blob] | NDArray[np.uint8]  # files, or pictures [k, H, W, C]
    how: pictures.Treatment
    size: tuple[int, int] | None = None  # (H, W) that all must have: the task ends at the first one that differs


# In order: k readable pictures of one shape as [k, H, W, C], or the k tiles of one picture; or, for one picture, why it
# is broken, or the operating system's refusal to read it.
Results = list[NDArray[np.uint8] | str | OSError]


class WorkerError(Exception):
    """A process ended that should not have; the text says how."""


def decode(task: Task) -> Results:
    """The pictures of a task. Runs in a thread or in a process of its own."""
    if isinstance(task.items, np.ndarray) and not task.how.cuts and task.how.keeps(task.items.shape):
        return [np.ascontiguousarray(task.items)]
    results: Results = []
    alike: list[NDArray[np.uint8]] = []  # the last readable pictures, of one shape
    with _Reader() as reader:
        for item in task.items:
            picture = _decode_one(item, task.how, reader)
            same = isinstance(picture, np.ndarray) and alike and picture.shape == alike[0].shape and not task.how.cuts
            if alike and not same:
                results.append(np.concatenate(alike))
                alike = []
            if not isinstance(picture, np.ndarray):
                results.append(picture)
                continue
            alike.append(picture)
            if task.size and picture.shape[1:3] != task.size:
                break
    return [*results, np.concatenate(alike)] if alike else results


def _decode_one(
    item: Blob | NDArray[np.uint8], how: pictures.Treatment, reader: "_Reader"
) -> NDArray[np.uint8] | str | OSError:
    """[1, H, W, C], or the fault, or the refusal to read it."""
    if isinstance(item, np.ndarray):
        try:
            return pictures.pixels(Image.fromarray(item[:, :, 0] if item.shape[2] == 1 else item), how)
        except ValueError as error:  # too small to be cut
            return pictures.complaint(error)
    try:
        data = reader.read(item)
    except OSError as error:
        return error
    except ValueError as error:
        return pictures.complaint(error)
    try:
        return pictures.pixels(pictures.decode(data), how)
    except Exception as error:  # Pillow raises nearly anything for a file that is not what it seems
        return pictures.complaint(error)


class _Reader:
    """Reads pictures; keeps an archive open, since its pictures follow each other."""

    def __init__(self) -> None:
        self.archive: IO[bytes] | None = None
        self.path = ""

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        if self.archive:
            self.archive.close()

    def read(self, blob: Blob) -> bytes:
        """The bytes of a picture. Raises OSError if the system refuses, ValueError if they are not there."""
        if blob.size > pictures.MAX_BYTES:
            raise ValueError(_TOO_LARGE)
        if blob.size < 0:
            with open(blob.path, "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size > pictures.MAX_BYTES:
                    raise ValueError(_TOO_LARGE)
                return file.read()
        if blob.path != self.path or not self.archive:
            self.__exit__()
            self.archive, self.path = None, blob.path
            self.archive = open(blob.path, "rb")  # noqa: SIM115
        self.archive.seek(blob.offset)
        return _zip_member(self.archive, blob) if blob.crc >= 0 else _exactly(self.archive, blob.size)


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ValueError("cut short")
    return data


def _zip_member(file: IO[bytes], blob: Blob) -> bytes:
    header = _exactly(file, _LOCAL_HEADER)
    if header[:4] != b"PK\3\4":
        raise ValueError("not where the zip says")
    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
    data = _exactly(file, blob.size)
    if blob.deflated:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflate.decompress(data, pictures.MAX_BYTES + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    if len(data) <= pictures.MAX_BYTES and zlib.crc32(data) != blob.crc:
        raise ValueError("damaged: its checksum differs")
    return data


def in_order(tasks: Iterable[Task], processes: bool) -> Generator[Results, None, None]:
    """The results of tasks, in their order, on every core. Close the iterator to end what it has started.

    processes: decode in processes rather than in threads. Raises WorkerError.
    """
    workers: list[_Worker] = []
    free: SimpleQueue[_Worker] = SimpleQueue()

    def by_process(task: Task) -> Results:
        worker = free.get()
        try:
            return worker(task)
        finally:
            free.put(worker)

    pending: deque[Future[Results]] = deque()
    with ThreadPoolExecutor(CORES) as pool:  # with processes, each thread waits for one
        try:
            if processes:
                for _ in range(CORES):
                    workers.append(_Worker())
                    free.put(workers[-1])
            else:
                Image.init()  # loads the decoders, which must not happen in several threads at once
            for task in tasks:
                pending.append(pool.submit(by_process if processes else decode, task))
                if len(pending) > 2 * CORES:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.kill()


class _Worker:
    """A process that decodes one task after the other. It ends with this one, however this one ends."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C on the terminal is for this process, which then ends that one.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.started = False

    def __call__(self, task: Task) -> Results:
        assert self.process.stdin
        assert self.process.stdout
        try:
            if not self.started:
                pickle.dump(sys.path, self.process.stdin)
                self.started = True
            pickle.dump(task, self.process.stdin, pickle.HIGHEST_PROTOCOL)
            self.process.stdin.flush()
            results: Results = pickle.load(self.process.stdout)
            return results
        except (OSError, EOFError, pickle.UnpicklingError):
            status = self.process.wait()
            raise WorkerError(f"signal {-status}" if status < 0 else f"exit status {status}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was still to be written
                if stream:
                    stream.close()


def work(tasks: Any, results: IO[bytes]) -> None:
    """The life of a worker process: answer tasks until there are no more, or nobody reads the answers."""
    warnings.simplefilter("ignore")
    with suppress(EOFError, OSError):
        while True:
            answer = decode(pickle.load(tasks))
            pickle.dump(answer, results, pickle.HIGHEST_PROTOCOL)
            results.flush()
    os._exit(0)  # not through the flush of a pipe that nobody reads
