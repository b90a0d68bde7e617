"""What all sources have in common: how one is described, which files are pictures, what their folders mean."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import DataError, printable
from edgegan.trainer.data import pictures
from edgegan.trainer.data.decoding import Blob


@dataclass(frozen=True)
class Pictures:
    """An open source. Of its pictures it holds no more than names, places and labels."""

    where: str  # of the source, for messages
    count: int
    name: Callable[[int], str]  # of one picture, for messages
    items: Callable[[int, int], list[Blob] | NDArray[Any]]  # pictures start .. stop - 1; as arrays: [k, H, W, C]
    labels: NDArray[np.int64] | None  # [N], positions in `classes`
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A source that is known to exist; `load` opens it."""

    name: str
    stamp: Any  # its repr() differs whenever the pictures may differ: the key of the cache
    load: Callable[[], AbstractContextManager[Pictures]]


def stamp(path: Path) -> tuple[str, int, int]:
    """What differs when a file has changed."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def suffix_of(path: str) -> str:
    """The lower-case suffix of the last part of a path, with its dot; "" if it has none."""
    stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if stem and dot else ""


def is_visible(name: str) -> bool:
    """Whether a file or folder is looked at: neither hidden nor a Mac's notes in its zips."""
    return not name.startswith(".") and name != "__MACOSX"


def is_picture(path: str, where: object) -> bool:
    """Whether a file is a picture by its suffix. Raises DataError for a picture of a format that is not read."""
    suffix = suffix_of(path)
    if suffix in pictures.OTHER_SUFFIXES:
        raise DataError(
            f"{printable(where)} holds {printable(path)}, and {printable(suffix)} is not read; convert "
            "it to PNG or JPEG, or take it out"
        )
    return suffix in pictures.SUFFIXES


def in_order_of_parts(path: str) -> str:
    """A key that sorts paths as tuples of their parts, so that the pictures of a folder stay together."""
    return path.replace("/", "\0")


def classes_of(
    paths: Sequence[str], folders: Iterable[str], where: object
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """The labels and the names of the classes that the folders of pictures mean.

    A folder in which there is nothing but one folder stands for that one: most zips have one around all.
    folders: all there are, also empty ones. Raises DataError.
    """
    name = printable(where)
    if not paths:
        raise DataError(f"{name} holds no pictures; read are {', '.join(sorted(pictures.SUFFIXES))}")
    inside: dict[str, list[str]] = {}  # folder -> the folders in it
    for folder in sorted(folders, key=in_order_of_parts):
        inside.setdefault(folder.rpartition("/")[0], []).append(folder)
    with_pictures = {path.rpartition("/")[0] for path in paths}
    top = ""
    while top not in with_pictures and len(inside.get(top, ())) == 1:
        top = inside[top][0]
    classes = inside.get(top, [])
    if not classes:
        return None, ()
    names = [folder.rpartition("/")[2] for folder in classes]
    if top in with_pictures:
        raise DataError(
            f"{printable(f'{where}/{top}'.rstrip('/'))} holds both pictures and folders ({printable(names[0])}); put "
            "every picture into a folder, which is its class, or all of them side by side"
        )
    position = {name: i for i, name in enumerate(names)}
    start = len(top) + 1 if top else 0
    labels = np.fromiter((position[path[start : path.index("/", start)]] for path in paths), np.int64, len(paths))
    empty = np.bincount(labels, minlength=len(classes)) == 0
    if empty.any():
        folder = printable(classes[int(empty.argmax())])
        raise DataError(f"the folder {folder} in {name} is a class without pictures; fill it or take it out")
    return labels, tuple(printable(name) for name in names)
