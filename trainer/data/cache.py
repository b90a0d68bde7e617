"""The cache of decoded sets: one folder each, that appears whole or not at all."""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegan.errors import DataError, printable
from edgegan.trainer.data.pictures import Progress, complaint, pixels
from edgegan.trainer.data.sources import Pictures, Source

FORMAT = 1  # of the cache; part of the key, so that a change never reads an old entry
MIN_PICTURES = 2
_DAY = 24 * 3600.0
_NAMED_BROKEN = 3  # broken pictures that an error names; it counts the others


@dataclass(frozen=True, eq=False)
class Dataset:
    """A decoded training set."""

    images: NDArray[np.uint8]  # [N, H, W, C], C = 1 (grey) or 3 (RGB); a read-only memory map
    labels: NDArray[np.int64] | None  # [N], positions in `classes`; None without classes
    classes: tuple[str, ...]  # their names; () without classes
    name: str  # short name of the source
    digest: str  # sha256 (hex) over shape, pixels and labels: identifies the content

    def __len__(self) -> int:
        return len(self.images)


def open_cached(
    source: Source, resolution: int | None, channels: int | None, root: Path, progress: Progress | None
) -> Dataset:
    """The decoded set of `source`, from the cache under `root` or put there now."""
    key = hashlib.sha256(repr((FORMAT, resolution, channels, source.stamp)).encode()).hexdigest()
    short = re.sub(r"[^A-Za-z0-9_-]+", "_", source.name)[:40]
    folder = root / "decoded" / f"{short}-{key[:32]}"
    for _ in range(3):  # another process may be replacing a damaged entry at the very moment of reading
        dataset = _read(folder, source.name)
        if dataset is not None:
            return dataset
        _decode_into(folder, source, resolution, channels, progress)
    raise DataError(f"the decoded pictures in {folder} are damaged when read back; check that disk")


def _read(folder: Path, name: str) -> Dataset | None:
    """The set in a cache folder; None if there is none or it is damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        classes = tuple(meta["classes"])
        images = np.lib.format.open_memmap(folder / "images.npy", mode="r")
        if images.dtype != np.uint8 or list(images.shape) != meta["shape"]:
            return None
        labels = None
        if classes:
            labels = np.load(folder / "labels.npy", allow_pickle=False)
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                return None
            if labels.min() < 0 or labels.max() >= len(classes):
                return None
            labels.flags.writeable = False
        return Dataset(images, labels, classes, name, str(meta["digest"]))
    except (FileNotFoundError, NotADirectoryError, EOFError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _decode_into(
    folder: Path, source: Source, resolution: int | None, channels: int | None, progress: Progress | None
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    building = folder.parent / f".building-{secrets.token_hex(8)}"
    building.mkdir()
    try:
        with source.load() as pictures, warnings.catch_warnings():
            # Pillow warns about odd but readable files, naming none; broken ones are errors below.
            warnings.simplefilter("ignore")
            meta = _write_images(building / "images.npy", pictures, resolution, channels, progress)
        if pictures.labels is not None:
            with (building / "labels.npy").open("wb") as file:
                np.save(file, pictures.labels, allow_pickle=False)
                _flush(file)
        with (building / "meta.json").open("wb") as file:
            file.write(json.dumps(meta).encode())
            _flush(file)
        try:
            building.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            if _read(folder, source.name) is None:  # damaged, and not what another process has just finished
                old = folder.rename(folder.parent / f".building-{secrets.token_hex(8)}")
                building.rename(folder)
                shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_images(
    path: Path, pictures: Pictures, resolution: int | None, channels: int | None, progress: Progress | None
) -> dict[str, Any]:
    """Decode every picture into a .npy file at `path`; -> the contents of meta.json."""
    count = len(pictures.names)
    if count < MIN_PICTURES:
        raise DataError(f"{pictures.where} holds {count} picture; training needs at least {MIN_PICTURES}")
    if channels is None:
        channels = 1 if all(pictures.is_grey(i) for i in range(count)) else 3

    def decoded(i: int) -> NDArray[np.uint8] | str:
        try:
            return pixels(pictures.decode(i), resolution, channels)
        except Exception as error:  # Pillow raises nearly anything for a file that is not what it seems
            return complaint(error)

    digest = hashlib.sha256()
    shape: tuple[int, ...] = ()
    broken: list[tuple[str, str]] = []
    step = max(1, count // 200)
    # Written front to back, not through a memory map: there a full disk would kill the process with SIGBUS.
    with path.open("wb") as file:
        for i, picture in enumerate(_in_order(decoded, count)):
            if isinstance(picture, str):
                broken.append((pictures.names[i], picture))
            elif not shape:
                shape = (count, *picture.shape)
                _check_room(path, shape)
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                digest.update(repr(shape).encode())
                first = pictures.names[i]
            elif picture.shape != shape[1:]:
                (h, w, _), (h2, w2, _) = shape[1:], picture.shape
                raise DataError(
                    f"the pictures differ in size: {printable(first)} is {w} x {h}, "
                    f"{printable(pictures.names[i])} is {w2} x {h2}; "
                    "pass --resolution N to crop and resize all of them to N x N"
                )
            if not broken and not isinstance(picture, str):
                data = picture.tobytes()
                file.write(data)
                digest.update(data)
            if progress and ((i + 1) % step == 0 or i + 1 == count):
                progress(i + 1, count, "decoding pictures")
        _flush(file)
    if broken:
        named = ", ".join(f"{printable(name)} ({why})" for name, why in broken[:_NAMED_BROKEN])
        more = f" and {len(broken) - _NAMED_BROKEN} more" if len(broken) > _NAMED_BROKEN else ""
        raise DataError(
            f"{len(broken)} of {count} pictures in {pictures.where} cannot be read: {named}{more}; "
            "repair them or take them out"
        )
    if pictures.labels is not None:
        digest.update(pictures.labels.astype("<i8").tobytes())
    return {"shape": shape, "classes": pictures.classes, "digest": digest.hexdigest(), "of": pictures.where}


def _in_order(function: Callable[[int], Any], count: int) -> Iterator[Any]:
    """function(0), function(1), ... on every core (Pillow's decoders let go of the interpreter lock).

    Unlike Executor.map it holds a few results at a time, not all of them.
    """
    Image.init()  # loads the decoders, which must not happen in several threads at once
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Any] = deque()
        for i in range(count):
            pending.append(pool.submit(function, i))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _check_room(path: Path, shape: tuple[int, ...]) -> None:
    needed, free = int(np.prod(shape, dtype=object)), shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"the decoded pictures need {needed / 2**20:,.1f} MiB, and {path.parent.parent} has "
            f"{free / 2**20:,.1f} MiB free; choose another disk with --data-root, or a smaller --resolution"
        )


def _flush(file: Any) -> None:
    """To the disk: else a power cut could leave the renamed folder with files of zeros."""
    file.flush()
    os.fsync(file.fileno())


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-built more than a day ago."""
    for left in folder.glob(".building-*"):
        try:
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            continue  # its owner has finished it just now
