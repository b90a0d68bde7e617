"""From what --data says to the pictures behind it: folders, zips, array files and named sets."""

import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegan.errors import DataError, printable
from edgegan.trainer.data import arrays, pictures
from edgegan.trainer.data.download import NAMED, fetch
from edgegan.trainer.data.pictures import Progress

DIGITS = Path(__file__).parent.parent / "datasets" / "digits.npz"
NAMES = ("digits", *NAMED)


@dataclass(frozen=True)
class Pictures:
    """An open source. `decode` and `is_grey` take a position, and may be called from several threads."""

    where: str  # of the source, for messages
    names: Sequence[str]  # one a picture, for messages
    decode: Callable[[int], Image.Image]  # upright, 8 bits, mode L or RGB; raises anything if broken
    is_grey: Callable[[int], bool]
    labels: NDArray[np.int64] | None  # [N], positions in `classes`
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A source that is known to exist; `load` opens it."""

    name: str
    stamp: Any  # its repr() differs whenever the pictures may differ: the key of the cache
    load: Callable[[], AbstractContextManager[Pictures]]


def find_source(source: str, root: Path, mirror: str | None, progress: Progress | None) -> Source:
    """The source that `source` names. Raises DataError if there is none, or no picture in it."""
    if source in NAMED:
        named = NAMED[source]

        def load_named() -> AbstractContextManager[Pictures]:
            images, labels = fetch(named, root, mirror, progress)
            found = arrays.from_idx(images, labels, named.classes, (named.images.sha256, named.labels.sha256))
            return nullcontext(_of_arrays(source, found))

        # The checksums fix the content, so a decoded set needs no look at the files it came from.
        return Source(source, (source, named.images.sha256, named.labels.sha256), load_named)
    path = DIGITS if source == "digits" else Path(source)
    if not source or not path.exists():
        raise DataError(
            f"no such data: {printable(source) or '(empty)'}; valid: a folder of pictures, a .zip, .npy, "
            f".npz or IDX file, or one of the names {', '.join(NAMES)}"
        )
    full = path.resolve()
    name = "digits" if source == "digits" else printable(full.stem if path.is_file() else full.name)
    if path.is_dir():
        idx = arrays.idx_in(path)
        return _array_files(name, *idx) if idx else _folder(name, path)
    if not path.is_file():
        raise DataError(f"{printable(source)} is neither a folder nor a regular file")
    if path.stat().st_size == 0:
        raise DataError(f"{printable(source)} is an empty file")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return Source(name, _stamp(path), lambda: _zip(path))
    if suffix in (".npy", ".npz"):
        return _array_files(name, path)
    if arrays.is_idx(path):
        return _array_files(name, path, arrays.idx_labels_of(path))
    raise DataError(
        f"{printable(source)} is not a kind of file that is read; valid: a folder of pictures, a .zip of "
        "one, .npy, .npz, or IDX files named as train-images-idx3-ubyte is"
    )


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


# Arrays -------------------------------------------------------------------------------------------


def _array_files(name: str, images: Path, labels: Path | None = None) -> Source:
    def load() -> AbstractContextManager[Pictures]:
        found = arrays.from_idx(images, labels) if arrays.is_idx(images) else arrays.from_numpy(images)
        return nullcontext(_of_arrays(printable(images), found))

    return Source(name, [_stamp(path) for path in (images, labels) if path], load)


def _of_arrays(where: str, found: arrays.Arrays) -> Pictures:
    images = found.images  # [N, H, W, C]
    grey = images.shape[3] == 1

    def decode(i: int) -> Image.Image:
        pixels = np.ascontiguousarray(images[i], np.uint8)
        return Image.fromarray(pixels[:, :, 0] if grey else pixels)

    names = [f"picture {i}" for i in range(len(images))]
    return Pictures(where, names, decode, lambda _: grey, found.labels, found.classes)


# Folders and zips ---------------------------------------------------------------------------------


def _folder(name: str, root: Path) -> Source:
    files: dict[PurePosixPath, tuple[int, int]] = {}  # path below root -> size, time of change
    folders: set[PurePosixPath] = set()
    reached = {root.resolve()}

    def complain(error: OSError) -> None:
        raise error  # os.walk would pass over a folder that cannot be read

    for here, subfolders, names in os.walk(root, followlinks=True, onerror=complain):
        below = Path(here).relative_to(root)
        subfolders[:] = [s for s in subfolders if _visible(s)]
        for subfolder in subfolders:
            target = (Path(here) / subfolder).resolve()
            if target in reached:
                link = Path(here) / subfolder
                raise DataError(f"{printable(link)} leads to a folder that was read before; take it out")
            reached.add(target)
            folders.add(PurePosixPath(below / subfolder))
        for file in filter(_visible, names):
            relative = PurePosixPath(below / file)
            if _is_picture(relative, root):
                files[relative] = _regular(root / relative)
    paths, labels, classes = _arrange(files, folders, root)

    def load() -> AbstractContextManager[Pictures]:
        opened = _of_files(root, paths, labels, classes, lambda i: (root / paths[i]).open("rb"))
        return nullcontext(opened)

    stamp = (str(root.resolve()), [(str(path), *files[path]) for path in paths])
    return Source(name, stamp, load)


def _regular(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{printable(path)} is a link to nothing; repair it or take it out") from None
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise DataError(f"{printable(path)} is not a regular file; take it out")
    return status.st_size, status.st_mtime_ns


@contextmanager
def _zip(path: Path) -> Iterator[Pictures]:
    where = printable(path)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged one fails in more ways than BadZipFile
        raise DataError(f"{where} is not a readable zip file: {printable(error)}") from error
    with archive:
        arrays.check_zip(archive, path)
        members: dict[PurePosixPath, zipfile.ZipInfo] = {}
        folders: set[PurePosixPath] = set()
        for info in archive.infolist():
            member = PurePosixPath(info.filename)
            if member.is_absolute() or ".." in member.parts:
                raise DataError(f"{where} holds {printable(info.filename)}, which points outside of it")
            if not all(_visible(part) for part in member.parts):
                continue
            around = (member, *member.parents) if info.is_dir() else member.parents
            folders.update(folder for folder in around if folder.parts)
            if not info.is_dir() and _is_picture(member, path):
                if member in members:
                    raise DataError(f"{where} holds {printable(info.filename)} twice; pack it again")
                members[member] = info
        paths, labels, classes = _arrange(members, folders, path)
        # One file object with a lock serves all members, so threads may read at the same time.
        yield _of_files(path, paths, labels, classes, lambda i: archive.open(members[paths[i]]))


def _of_files(
    where: Path,
    paths: Sequence[PurePosixPath],
    labels: NDArray[np.int64] | None,
    classes: tuple[str, ...],
    open_file: Callable[[int], IO[bytes]],
) -> Pictures:
    def decode(i: int) -> Image.Image:
        with open_file(i) as stream:
            return pictures.decode(stream)

    def is_grey(i: int) -> bool:
        try:
            with open_file(i) as stream:
                return pictures.is_grey(stream)
        except Exception:  # decode() meets it again, and is asked why
            return True

    return Pictures(printable(where), [str(path) for path in paths], decode, is_grey, labels, classes)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"  # the latter: a Mac's notes in its zips


def _is_picture(path: PurePosixPath, where: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in pictures.OTHER_SUFFIXES:
        raise DataError(
            f"{printable(where)} holds {printable(path)}, and {printable(suffix)} is not read; convert "
            "it to PNG or JPEG, or take it out"
        )
    return suffix in pictures.SUFFIXES


def _arrange(
    files: Iterable[PurePosixPath], folders: set[PurePosixPath], where: Path
) -> tuple[list[PurePosixPath], NDArray[np.int64] | None, tuple[str, ...]]:
    """The pictures in order of their paths, with the labels and class names that their folders mean.

    A folder in which there is nothing but one folder stands for that one: most zips have one around all.
    """
    name = printable(where)
    paths = sorted(files)
    if not paths:
        raise DataError(f"{name} holds no pictures; read are {', '.join(sorted(pictures.SUFFIXES))}")
    parents = {path.parent for path in paths}
    top = PurePosixPath()
    while True:
        inside = sorted(folder for folder in folders if folder.parent == top)
        if top in parents or len(inside) != 1:
            break
        top = inside[0]
    if not inside:
        return paths, None, ()
    if top in parents:
        raise DataError(
            f"{printable(where / top)} holds both pictures and folders ({printable(inside[0].name)}); put "
            "every picture into a folder, which is its class, or all of them side by side"
        )
    position = {folder.name: i for i, folder in enumerate(inside)}
    labels = np.array([position[path.parts[len(top.parts)]] for path in paths], np.int64)
    empty = set(range(len(inside))) - set(labels.tolist())
    if empty:
        folder = printable(inside[min(empty)])
        raise DataError(f"the folder {folder} in {name} is a class without pictures; fill it or take it out")
    return paths, labels, tuple(printable(folder.name) for folder in inside)
