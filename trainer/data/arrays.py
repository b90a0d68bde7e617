"""Pictures that come as arrays: .npy, .npz and IDX (the format of MNIST)."""

import gzip
import hashlib
import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import DataError, printable

IMAGE_KEYS = ("images", "x", "x_train")
LABEL_KEYS = ("labels", "y", "y_train")
_IDX_IMAGES = re.compile(r"images?[-._]idx[34]-ubyte(\.gz)?$")
_MOST_DEFLATE_GROWS = 1032
_ROWS = 256  # pictures looked at together when values are checked


@dataclass(frozen=True)
class Arrays:
    images: NDArray[Any]  # [N, H, W, C], integers 0..255 in any real dtype, C = 1 or 3
    labels: NDArray[np.int64] | None  # [N], positions in `classes`
    classes: tuple[str, ...]


def from_numpy(path: Path) -> Arrays:
    """The arrays of a .npy file (images), or of a .npz file (images and perhaps labels)."""
    where = printable(path)
    images: NDArray[Any]
    labels: NDArray[Any] | None = None
    try:
        if path.suffix.lower() == ".npy":
            images = np.lib.format.open_memmap(path, mode="r")
        else:
            # Opened here, because np.load(path) leaves the file open when it is not what it seems.
            with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
                images, labels = _of_npz(archive, path)
    except DataError:
        raise
    except Exception as error:  # a damaged file fails in numpy, zipfile, zlib or tokenize, each in its way
        reason = printable(" ".join(str(error).split()))
        raise DataError(f"{where} is not a readable .npy or .npz file of numbers: {reason}") from error
    return _checked(where, images, labels, None)


def _of_npz(archive: Any, path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    check_zip(archive.zip, path)
    label_key = next((key for key in LABEL_KEYS if key in archive), None)
    others = [key for key in archive if key != label_key]
    image_key = next((key for key in IMAGE_KEYS if key in archive), others[0] if len(others) == 1 else None)
    if image_key is None:
        raise DataError(
            f"{printable(path)} holds the arrays {printable(', '.join(archive)) or '(none)'}; name the "
            f"pictures {IMAGE_KEYS[0]} and the labels {LABEL_KEYS[0]}"
        )
    return archive[image_key], None if label_key is None else archive[label_key]


def check_zip(archive: zipfile.ZipFile, path: Path) -> None:
    """Bound what unpacking can cost: DataError unless members are stored or deflated, and do not overlap.

    Deflate grows at most 1,032-fold, so together they hold at most 1,032 times the size of the file.
    """
    where = printable(path)
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise DataError(f"{where} is encrypted; pass an archive without a password")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{where} is compressed in an unusual way; pack it with deflate")
    if sum(info.compress_size for info in archive.infolist()) > path.stat().st_size:
        raise DataError(f"{where} holds members that overlap: a zip bomb")


# IDX ----------------------------------------------------------------------------------------------


def is_idx(path: Path) -> bool:
    """Whether a file is named as the images of an IDX pair: train-images-idx3-ubyte, with or without .gz."""
    return _IDX_IMAGES.search(path.name) is not None


def idx_in(folder: Path) -> tuple[Path, Path | None] | None:
    """The images and the labels of the training set among a folder's IDX files, or None."""
    beginning = (folder / name for name in os.listdir(folder) if name.startswith("train-images"))
    found = sorted(p for p in beginning if is_idx(p) and p.is_file())
    return (found[0], idx_labels_of(found[0])) if found else None  # sorted: the unpacked one goes first


def idx_labels_of(images: Path) -> Path | None:
    """The labels file beside an images file, packed or not; None if there is none."""
    name = images.name.removesuffix(".gz")
    name = re.sub(r"image(s?)([-._])idx[34]", r"label\1\2idx1", name)
    beside = (images.with_name(name), images.with_name(f"{name}.gz"))
    return next((path for path in beside if path.is_file()), None)


def from_idx(
    images: Path,
    labels: Path | None,
    classes: tuple[str, ...] | None = None,
    sha256: tuple[str, str] | None = None,
) -> Arrays:
    """The arrays of an IDX pair. classes: names of the labels 0, 1, ...; sha256: of both files, unpacked."""
    digests = sha256 or (None, None)
    pixels = read_idx(images, digests[0])
    values = None if labels is None else read_idx(labels, digests[1])
    return _checked(printable(images), pixels, values, classes)


def is_gzip(path: Path) -> bool:
    """Whether a file is gzipped, whatever its name says."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def read_idx(path: Path, sha256: str | None = None) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes, gzipped or not; of any rank from 1 to 4.

    The format: http://yann.lecun.com/exdb/mnist. `sha256` is the expected digest of the unpacked file. Raises
    DataError.
    """
    where = printable(path)
    packed = is_gzip(path)
    most = path.stat().st_size * (_MOST_DEFLATE_GROWS if packed else 1)
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            header = file.read(4)
            rank = header[3] if len(header) == 4 and header[:3] == b"\0\0\x08" else 0
            if not 1 <= rank <= 4:
                raise DataError(f"{where} is not an IDX file of unsigned bytes: its start is {header.hex()}")
            sizes = file.read(4 * rank)
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            # Believing the header of a small file could cost any amount of memory.
            body = file.read(prod(shape) + 1) if prod(shape) <= most else b""
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{where} is damaged: {error}") from error
    if len(shape) != rank or len(body) != prod(shape):
        raise DataError(f"{where} is cut short or damaged: its header promises {list(shape)} bytes")
    if sha256 and hashlib.sha256(header + sizes + body).hexdigest() != sha256:
        raise DataError(f"{where} is not the published file: its SHA-256 differs from {sha256}; delete it")
    return np.frombuffer(body, np.uint8).reshape(shape)


# Checks -------------------------------------------------------------------------------------------


def _checked(where: str, images: NDArray[Any], labels: NDArray[Any] | None, classes: tuple[str, ...] | None) -> Arrays:
    images = _check_values(where, _channels_last(where, images))
    if labels is None:
        return Arrays(images, None, ())
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(
            f"{where} has {len(images)} pictures, and labels of shape {list(labels.shape)}; valid: one each"
        )
    labels = labels.reshape(-1)
    if classes is None:
        if labels.dtype.kind not in "biuU":
            raise DataError(f"the labels of {where} are {labels.dtype}; valid: integers or names")
        values, positions = np.unique(labels, return_inverse=True)
        return Arrays(images, positions.astype(np.int64), tuple(printable(value) for value in values))
    return Arrays(images, labels.astype(np.int64), classes)


def _channels_last(where: str, images: NDArray[Any]) -> NDArray[Any]:
    """[N, H, W], [N, H, W, C] or [N, C, H, W] -> [N, H, W, C]."""
    shape = images.shape
    if 0 not in shape:
        if len(shape) == 3:
            return images[..., None]
        if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
            return images
        if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
            return images.transpose(0, 2, 3, 1)
    raise DataError(
        f"{where} holds an array of shape {list(shape)}; valid: [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3"
    )


def _check_values(where: str, images: NDArray[Any]) -> NDArray[Any]:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):  # casting NaN; the comparison then says so
            rows = (images[i : i + _ROWS] for i in range(0, len(images), _ROWS))
            if all((row.astype(np.uint8) == row).all() for row in rows):
                return images
        found = f"{images.dtype} values from {images.min():g} to {images.max():g}"
    else:
        found = f"{images.dtype} values"
    raise DataError(f"{where} holds {found}; valid: uint8, or whole numbers 0..255: scale and round them")
