"""Filling a new folder of the cache: the pixels, front to back, and what is known of them."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import DataError, printable
from edgegan.trainer.data.decoding import CORES, PROCESSES_FROM, Results, Task, WorkerError, decode, in_order
from edgegan.trainer.data.files import Pictures
from edgegan.trainer.data.pictures import Progress, Treatment

MIN_PICTURES = 2
NAMED_BROKEN = 3  # broken pictures that a message names; it counts the others
SKIPPED = "skipped.txt"
_CHUNK = 256  # pictures that are decoded as one task,
_CHUNK_BYTES = 4 << 20  # or fewer, so that their pixels are no more than this
_HEADER = 128  # bytes of a .npy file before the data
_BLOCK = 1 << 20


def write_entry(folder: Path, pictures: Pictures, how: Treatment, progress: Progress | None, skip_broken: bool) -> None:
    """Write images.npy, labels.npy, meta.json, and skipped.txt if broken pictures are left out. Raises DataError."""
    count, where = pictures.count, pictures.where
    if count < MIN_PICTURES:
        raise DataError(f"{where} holds {count} picture; training needs at least {MIN_PICTURES}")
    with ImagesFile(folder / "images.npy", count) as images:
        broken, tiles = _decode_all(images, pictures, how, progress, skip_broken)
        if broken and not (skip_broken and count - len(broken) >= MIN_PICTURES):
            named = ", ".join(broken[i] for i in list(broken)[:NAMED_BROKEN])
            more = f" and {len(broken) - NAMED_BROKEN} more" if len(broken) > NAMED_BROKEN else ""
            advice = f"training needs {MIN_PICTURES}" if skip_broken else "repair them or take them out (--skip-broken)"
            raise DataError(f"{len(broken)} of {count} pictures in {where} cannot be read: {named}{more}; {advice}")
        labels = _labels_without(broken, pictures)
        if tiles and labels is not None:
            labels = np.repeat(labels, tiles)
        shape, digest = images.finish(labels)
    if labels is not None:
        with (folder / "labels.npy").open("wb") as file:
            np.save(file, labels, allow_pickle=False)
            _flush(file)
    if broken:
        with (folder / SKIPPED).open("w", encoding="utf-8") as text:
            text.writelines(f"{line}\n" for line in broken.values())
            _flush(text)
    meta = {"shape": shape, "classes": pictures.classes, "digest": digest, "skipped": len(broken), "of": where}
    with (folder / "meta.json").open("wb") as file:
        file.write(json.dumps(meta).encode())
        _flush(file)


def _decode_all(
    images: "ImagesFile", pictures: Pictures, how: Treatment, progress: Progress | None, skip_broken: bool
) -> tuple[dict[int, str], list[int]]:
    """Write the readable pictures.

    -> position: name and fault of each broken one; and, where pictures are cut, the number of tiles of each other one.
    """
    count = pictures.count
    broken: dict[int, str] = {}
    tiles: list[int] = []
    size = None if how.resolution is None else (how.resolution, how.resolution)  # (H, W) of all
    done = first = 0
    step = max(1, count // 200)

    def take(results: Results) -> None:
        nonlocal size, done, first
        before = done
        for found in results:
            if isinstance(found, OSError):  # of a disk or a permission: says nothing of the picture
                raise DataError(
                    f"{printable(pictures.name(done))} in {pictures.where} cannot be read: {found.strerror}"
                )
            if isinstance(found, str):
                broken[done] = f"{printable(pictures.name(done))} ({found})"
                done += 1
                continue
            if size is None:
                size, first = found.shape[1:3], done
            elif found.shape[1:3] != size:
                (h, w), (h2, w2) = size, found.shape[1:3]
                raise DataError(
                    f"the pictures differ in size: {printable(pictures.name(first))} is {w} x {h}, "
                    f"{printable(pictures.name(done))} is {w2} x {h2}; "
                    "pass --resolution N to crop and resize all of them to N x N"
                )
            if skip_broken or not broken:
                images.add(found)
            if how.cuts:
                tiles.append(len(found))
            done += 1 if how.cuts else len(found)
        if progress and (done // step > before // step or done == count):
            progress(done, count, "decoding pictures")

    while size is None and done < count:  # one by one until their size is known
        take(decode(Task(pictures.items(done, done + 1), how)))

    def tasks() -> Iterator[Task]:
        assert size
        n = max(1, min(_CHUNK, _CHUNK_BYTES // (3 * prod(size)), count // (4 * CORES)))
        n = 1 if how.cuts else n
        for start in range(done, count, n):
            yield Task(pictures.items(start, min(start + n, count)), how, size)

    one = pictures.items(0, 1)
    ready = isinstance(one, np.ndarray) and not how.cuts and how.keeps(one.shape)
    many = count >= PROCESSES_FROM and not ready and bool(sys.executable)
    with closing(in_order(tasks() if done < count else (), processes=many)) as every:
        try:
            for results in every:
                take(results)
        except WorkerError as error:
            raise DataError(
                f"the process that decoded {printable(pictures.name(done))} in {pictures.where}, or one of the next "
                f"{_CHUNK} pictures, ended with {error}; out of memory, or a picture that breaks its decoder"
            ) from None
    return broken, tiles


def _labels_without(broken: dict[int, str], pictures: Pictures) -> NDArray[np.int64] | None:
    """The labels of the readable pictures. Raises DataError if a class has lost all of its own."""
    if pictures.labels is None:
        return None
    labels = np.delete(pictures.labels, list(broken))
    empty = np.bincount(labels, minlength=len(pictures.classes)) == 0
    if broken and empty.any():
        lost = int(empty.argmax())
        one = next(fault for i, fault in broken.items() if pictures.labels[i] == lost)
        raise DataError(
            f"no picture of the class {pictures.classes[lost]} in {pictures.where} can be read: {one}; repair them or "
            "take the class out"
        )
    return labels


class ImagesFile:
    """images.npy while it grows: grey until a picture in colour comes, and from then on RGB.

    Written front to back, not through a memory map: there a full disk would kill the process with SIGBUS.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.expected, self.count = path, count, 0
        self.shape: tuple[int, ...] = ()  # of one picture
        self.digest: Any = None  # of shape and pixels, while these are as expected
        self.file = path.open("w+b")

    def __enter__(self) -> "ImagesFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, images: NDArray[np.uint8]) -> None:
        """Append pictures [k, H, W, C]."""
        if not self.shape:
            self.shape = images.shape[1:]
            _check_room(self.path, self.expected, self.shape)
            self.file.write(bytes(_HEADER))
            self.digest = hashlib.sha256(repr((self.expected, *self.shape)).encode())
        if images.shape[3] > self.shape[2]:
            self._become_rgb()
        data = np.ascontiguousarray(np.broadcast_to(images, (len(images), *self.shape))).data
        self.file.write(data)
        if self.digest:
            self.digest.update(data)
        self.count += len(images)

    def _become_rgb(self) -> None:
        """Write anew, with three equal channels, what was written in grey."""
        self.shape, self.digest = (*self.shape[:2], 3), None
        _check_room(self.path, self.expected, self.shape)
        self.file.seek(_HEADER)
        with self.file as grey:
            self.path.unlink()
            self.file = self.path.open("w+b")
            self.file.write(bytes(_HEADER))
            while block := grey.read(_BLOCK):
                self.file.write(np.repeat(np.frombuffer(block, np.uint8), 3).data)

    def finish(self, labels: NDArray[np.int64] | None) -> tuple[tuple[int, ...], str]:
        """Write the header, and all to the disk; -> the shape, and SHA-256 over shape, pixels and labels."""
        shape = (self.count, *self.shape)
        digest = self.digest
        if digest is None or self.count != self.expected:
            digest = hashlib.sha256(repr(shape).encode())
            self.file.seek(_HEADER)
            while block := self.file.read(_BLOCK):
                digest.update(block)
        if labels is not None:
            digest.update(labels.astype("<i8").tobytes())
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
        self.file.seek(0)
        # The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. NumPy's own writer does
        # not promise the length of a header whose shape is not known yet.
        self.file.write(b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little"))
        self.file.write(header.ljust(_HEADER - 11).encode() + b"\n")
        _flush(self.file)
        return shape, str(digest.hexdigest())


def _check_room(path: Path, count: int, shape: tuple[int, ...]) -> None:
    needed, free = count * prod(shape), shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"the decoded pictures need {needed / 2**20:,.1f} MiB, and {path.parent.parent} has "
            f"{free / 2**20:,.1f} MiB free; choose another disk with --data-root, or a smaller --resolution"
        )


def _flush(file: Any) -> None:
    """To the disk: else a power cut could leave the renamed folder with files of zeros."""
    file.flush()
    os.fsync(file.fileno())
