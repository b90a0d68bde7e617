"""From what --data says to the pictures behind it: folders, archives, array files and named sets."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from edgegan.errors import DataError, printable
from edgegan.trainer.data import archives, arrays
from edgegan.trainer.data.decoding import Blob
from edgegan.trainer.data.download import NAMED, fetch
from edgegan.trainer.data.files import Pictures, Source, classes_of, is_picture, is_visible, stamp
from edgegan.trainer.data.pictures import Progress

DIGITS = Path(__file__).parent.parent / "datasets" / "digits.npz"
NAMES = ("digits", *NAMED)


def find_source(source: str, root: Path, download_from: str | None, progress: Progress | None) -> Source:
    """The source that `source` names. Raises DataError if there is none, or no picture in it."""
    if source in NAMED:
        named = NAMED[source]

        def load_named() -> AbstractContextManager[Pictures]:
            images, labels = fetch(named, root, download_from, progress)
            found = arrays.from_idx(images, labels, named.classes, (named.images.sha256, named.labels.sha256))
            return nullcontext(_of_arrays(source, found))

        # The checksums fix the content, so a decoded set needs no look at the files it came from.
        return Source(source, (source, named.images.sha256, named.labels.sha256), load_named)
    path = DIGITS if source == "digits" else Path(source)
    if source and not path.exists() and archives.is_pattern(source):
        return archives.tar(archives.name_of_pattern(source), archives.expand(source))
    if not source or not path.exists():
        raise DataError(
            f"no such data: {printable(source) or '(empty)'}; valid: a folder of pictures, a .zip, .tar, .npy, "
            f".npz or IDX file, or one of the names {', '.join(NAMES)}"
        )
    full = path.resolve()
    name = "digits" if source == "digits" else printable(full.stem if path.is_file() else full.name)
    if path.is_dir():
        if idx := arrays.idx_in(path):
            return _array_files(name, *idx)
        shards = archives.shards_in(path)
        return archives.tar(name, shards) if shards else _folder(name, path)
    if not path.is_file():
        raise DataError(f"{printable(source)} is neither a folder nor a regular file")
    if path.stat().st_size == 0:
        raise DataError(f"{printable(source)} is an empty file")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return Source(name, stamp(path), lambda: nullcontext(archives.open_zip(path)))
    if archives.is_tar(path):
        return archives.tar(name, [path])
    if suffix in (".npy", ".npz"):
        return _array_files(name, path)
    if arrays.is_idx(path):
        return _array_files(name, path, arrays.idx_labels_of(path))
    raise DataError(
        f"{printable(source)} is not a kind of file that is read; valid: a folder of pictures, a .zip or .tar of "
        "one, .npy, .npz, or IDX files named as train-images-idx3-ubyte is"
    )


# Arrays -------------------------------------------------------------------------------------------


def _array_files(name: str, images: Path, labels: Path | None = None) -> Source:
    def load() -> AbstractContextManager[Pictures]:
        found = arrays.from_idx(images, labels) if arrays.is_idx(images) else arrays.from_numpy(images)
        return nullcontext(_of_arrays(printable(images), found))

    return Source(name, [stamp(path) for path in (images, labels) if path], load)


def _of_arrays(where: str, found: arrays.Arrays) -> Pictures:
    return Pictures(
        where,
        len(found.images),
        lambda i: f"picture {i}",
        lambda start, stop: found.images[start:stop].astype("u1", order="C"),
        found.labels,
        found.classes,
    )


# Folders ------------------------------------------------------------------------------------------


def _folder(name: str, root: Path) -> Source:
    paths: list[str] = []
    folders: list[str] = []
    digest = hashlib.sha256()
    for path, status in _walk(root):
        if stat.S_ISDIR(status.st_mode):
            folders.append(path)
        elif is_picture(path, root):
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                raise DataError(f"{printable(root / path)} is not a regular file; take it out")
            paths.append(path)
            digest.update(os.fsencode(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    labels, classes = classes_of(paths, folders, root)

    def items(start: int, stop: int) -> list[Blob]:
        return [Blob(os.path.join(root, path)) for path in paths[start:stop]]

    opened = Pictures(printable(root), len(paths), paths.__getitem__, items, labels, classes)
    return Source(name, (str(root.resolve()), len(paths), digest.hexdigest()), lambda: nullcontext(opened))


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The path below `root` and the status of all visible files and folders, sorted by the parts of the path.

    Links are followed. Raises DataError for one that leads nowhere, or to where the walk has been before.
    """
    reached = {root.resolve()}
    open_folders = [("", iter(sorted(os.listdir(root))))]
    while open_folders:
        prefix, names = open_folders[-1]
        for name in names:
            if not is_visible(name):
                continue
            path = prefix + name
            full = os.path.join(root, path)
            try:
                status = os.stat(full)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                if not is_picture(path, root):
                    continue
                raise DataError(f"{printable(full)} is a link to nothing; repair it or take it out") from None
            if stat.S_ISDIR(status.st_mode):
                target = Path(full).resolve()
                if target in reached:
                    raise DataError(f"{printable(full)} leads to a folder that was read before; take it out")
                reached.add(target)
                open_folders.append((f"{path}/", iter(sorted(os.listdir(full)))))
                yield path, status
                break
            yield path, status
        else:
            open_folders.pop()
