"""Archives of pictures: zip files, and tar shards as WebDataset lays them out. They are never unpacked to disk."""

import os
import posixpath
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import DataError, one_line, printable
from edgegan.trainer.data import arrays
from edgegan.trainer.data.decoding import Blob
from edgegan.trainer.data.files import (
    Pictures,
    Source,
    classes_of,
    in_order_of_parts,
    is_picture,
    is_visible,
    stamp,
    suffix_of,
)

MAX_SHARDS = 1_000_000
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_LABEL = re.compile(rb"\s*(-?\d{1,18})\s*")
_MAX_LABEL_BYTES = 64
_NO_LABEL = np.iinfo(np.int64).min
_BLOCK = 1 << 20


def open_zip(path: Path) -> Pictures:
    """The pictures of a zip file. Raises DataError."""
    where = printable(path)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged one fails in more ways than BadZipFile
        raise DataError(f"{where} is not a readable zip file: {printable(error)}") from error
    with archive:
        arrays.check_zip(archive, path)
        members: dict[str, zipfile.ZipInfo] = {}
        folders: set[str] = set()
        for info in archive.infolist():
            member = _member(info.filename, where)
            if not _is_visible(member):
                continue
            _add_folders(folders, member, info.is_dir())
            if not info.is_dir() and is_picture(member, path):
                if member in members:
                    raise DataError(f"{where} holds {printable(info.filename)} twice; pack it again")
                members[member] = info
    paths = sorted(members, key=in_order_of_parts)
    labels, classes = classes_of(paths, folders, path)
    # Columns, since the zip's own objects take half a kilobyte a picture.
    infos = [members[name] for name in paths]
    places = np.array([(info.header_offset, info.compress_size, info.CRC) for info in infos], np.int64)
    deflated = np.array([info.compress_type == zipfile.ZIP_DEFLATED for info in infos])

    def items(start: int, stop: int) -> list[Blob]:
        rows = zip(places[start:stop].tolist(), deflated[start:stop].tolist(), strict=True)
        return [Blob(str(path), offset, size, crc, packed) for (offset, size, crc), packed in rows]

    return Pictures(where, len(paths), paths.__getitem__, items, labels, classes)


def _member(name: str, where: str) -> str:
    """A member's path in its shortest form; "." for the folder around all. Raises DataError if it leads outside."""
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(f"{where} holds {printable(name)}, which points outside of it")
    return posixpath.normpath(name)


def _is_visible(member: str) -> bool:
    return member == "." or all(map(is_visible, member.split("/")))


def _add_folders(folders: set[str], member: str, is_folder: bool) -> None:
    """Add those that a member lies in, or is."""
    folder = member if is_folder else member.rpartition("/")[0]
    while folder not in ("", ".") and folder not in folders:
        folders.add(folder)
        folder = folder.rpartition("/")[0]


# Tar shards ---------------------------------------------------------------------------------------


def is_tar(path: Path) -> bool:
    """Whether a file is a tar shard by its name. Raises DataError for a packed one."""
    if path.name.lower().endswith(_PACKED):
        raise DataError(
            f"{printable(path)} is a packed tar, in which no picture can be found without unpacking all before it; "
            "unpack it to a plain .tar (pictures are packed already)"
        )
    return path.suffix.lower() == ".tar"


def shards_in(folder: Path) -> list[Path]:
    """The tar shards of a folder that holds nothing else, sorted; none if it holds no .tar."""
    visible = sorted(filter(is_visible, os.listdir(folder)))
    shards = [folder / name for name in visible if name.lower().endswith((".tar", *_PACKED)) and is_tar(folder / name)]
    if shards:
        for name in visible:
            if is_picture(name, folder) or (folder / name).is_dir():
                raise DataError(
                    f"{printable(folder)} holds both .tar shards and {printable(name)}; give the shards a folder of "
                    "their own"
                )
    return shards


def is_pattern(source: str) -> bool:
    """Whether a path has a range in braces, as shards-{000..012}.tar."""
    return _RANGE.search(source) is not None


def name_of_pattern(source: str) -> str:
    """The pattern's last part without braces, for people."""
    return printable(_RANGE.sub("", Path(source).name).removesuffix(".tar")).strip("-_. ") or "shards"


def expand(source: str) -> list[Path]:
    """The files of a path with ranges of numbers in braces, which all must be there."""
    pieces = _RANGE.split(source)  # text, first, last, text, first, last, ..., text
    paths = [pieces[0]]
    for first, last, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        count = int(last) - int(first) + 1
        if not 1 <= count * len(paths) <= MAX_SHARDS:
            raise DataError(
                f"{printable(source)} stands for {max(0, count) * len(paths)} files; valid: 1 to {MAX_SHARDS:,}"
            )
        width = len(first) if first.startswith("0") else 0
        numbers = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
        paths = [f"{path}{number}{text}" for path in paths for number in numbers]
    found = [Path(path) for path in paths]
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(found)} files of {printable(source)} are not there, the first of them "
            f"{printable(missing[0])}"
        )
    wrong = next((path for path in found if not is_tar(path)), None)
    if wrong:
        raise DataError(f"{printable(wrong)} is no .tar; a range in braces names tar shards")
    return found


def tar(name: str, shards: Sequence[Path]) -> Source:
    """The pictures of tar shards."""
    return Source(name, ("tar", [stamp(path) for path in shards]), lambda: nullcontext(_open_shards(shards)))


def _open_shards(shards: Sequence[Path]) -> Pictures:
    where = printable(shards[0] if len(shards) == 1 else f"{shards[0]} to {shards[-1].name}")
    paths: list[str] = []
    folders: set[str] = set()
    columns: list[NDArray[np.int64]] = []
    for number, path in enumerate(shards):
        samples = _index(path, folders)
        paths += [sample[0] for sample in samples]
        rows = [(number, *sample[1:]) for sample in samples]
        columns.append(np.array(rows, np.int64).reshape(-1, 4))
    places = np.concatenate(columns)  # [N, 4]: shard, offset, size, label

    def name(i: int) -> str:
        return paths[i] if len(shards) == 1 else f"{shards[places[i, 0]].name}: {paths[i]}"

    def items(start: int, stop: int) -> list[Blob]:
        return [Blob(str(shards[shard]), offset, size) for shard, offset, size, _ in places[start:stop].tolist()]

    unlabelled = places[:, 3] == _NO_LABEL
    if unlabelled.all():  # a tar of an ordinary folder, perhaps
        labels, classes = classes_of(paths, folders, where)
    elif unlabelled.any():
        with_label, without = printable(name(int(unlabelled.argmin()))), printable(name(int(unlabelled.argmax())))
        raise DataError(f"{where} has a .cls for {with_label} and none for {without}; give all samples one, or none")
    else:
        values, labels = np.unique(places[:, 3], return_inverse=True)
        classes = tuple(map(str, values))
    return Pictures(where, len(paths), name, items, labels, classes)


def _index(path: Path, folders: set[str]) -> list[tuple[str, int, int, int]]:
    """The samples of a shard, sorted: the picture's path, offset and size, and its label or _NO_LABEL.

    A sample's members share their path up to the first dot of its last part. Adds to `folders` those in the shard.
    """
    where = printable(path)
    found: dict[str, tuple[str, int, int]] = {}  # sample -> its picture
    labels: dict[str, int] = {}
    for member, info, archive in _members(path):
        _add_folders(folders, member, info.isdir())
        if info.isdir():
            continue
        folder, slash, name = member.rpartition("/")
        sample = folder + slash + name.partition(".")[0]
        if is_picture(member, path):
            if sample in found:
                raise DataError(
                    f"{where} holds two pictures of one sample, {printable(found[sample][0])} and {printable(member)}: "
                    "a sample's name ends at the first dot; rename one of them or take it out"
                )
            found[sample] = member, info.offset_data, info.size
        elif suffix_of(member) == ".cls":
            archive.seek(info.offset_data)
            number = _LABEL.fullmatch(archive.read(info.size)) if info.size <= _MAX_LABEL_BYTES else None
            if number is None or sample in labels:
                raise DataError(f"{where}: {printable(member)} is not the only label of its sample, an integer as text")
            labels[sample] = int(number[1])
    lost = next((sample for sample in labels if sample not in found), None)
    if lost is not None:
        raise DataError(f"{where} has a .cls for {printable(lost)} and no picture; add it, or take out the .cls")
    samples = ((*found[sample], labels.get(sample, _NO_LABEL)) for sample in found)
    return sorted(samples, key=lambda sample: in_order_of_parts(sample[0]))


def _members(path: Path) -> Iterator[tuple[str, tarfile.TarInfo, IO[bytes]]]:
    """The visible files and folders of a tar, each with the open tar. Raises DataError.

    Python's tarfile takes damage in the middle for the end; a set must not become smaller in silence.
    """
    where = printable(path)
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            last = -1
            while info := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                if info.size < 0 or archive.offset <= last:
                    raise DataError(f"{where} is damaged at {printable(info.name)}: its sizes make no sense")
                last = archive.offset
                member = _member(info.name, where)
                if not _is_visible(member):
                    continue
                plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and info.sparse is None
                if not plain and not info.isdir():
                    raise DataError(
                        f"{where} holds {printable(info.name)}, which is no plain file (a link, a device or a sparse "
                        "file); pack it again with  tar --dereference"
                    )
                yield member, info, file
            file.seek(archive.offset)
            rest = file.read(tarfile.BLOCKSIZE)
            if len(rest) < tarfile.BLOCKSIZE:
                raise DataError(f"{where} is cut short: the mark of its end is missing")
            while rest:
                if any(rest):
                    raise DataError(
                        f"{where} is damaged, or several tars in one file: there is more after byte {archive.offset}, "
                        "where it should end"
                    )
                rest = file.read(_BLOCK)
    except (DataError, OSError):
        raise
    except Exception as error:  # a damaged one fails in more ways than TarError
        raise DataError(f"{where} is not a readable tar file: {one_line(error)}") from error
