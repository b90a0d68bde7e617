"""The sets that are known by name: fetched from public mirrors, and believed only for their SHA-256."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

from edgegan.errors import DataError, printable
from edgegan.trainer.data.arrays import is_gzip, read_idx
from edgegan.trainer.data.pictures import Progress

TIMEOUT_S = 30.0  # for connecting, and for each wait for more
_SLACK = 64 << 10  # bytes that gzip may add
_BLOCK = 64 << 10


@dataclass(frozen=True)
class File:
    name: str  # unpacked; mirrors hold it with .gz
    sha256: str  # of the unpacked file, so that it does not matter who packed it
    size: int  # of the unpacked file, in bytes


@dataclass(frozen=True)
class NamedSet:
    name: str
    images: File
    labels: File
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]


def _set(name: str, images: str, labels: str, classes: tuple[str, ...], mirrors: tuple[str, ...]) -> NamedSet:
    """The training half of a set in MNIST's format: 60,000 pictures of 28 x 28 bytes."""
    return NamedSet(
        name,
        File("train-images-idx3-ubyte", images, 16 + 60_000 * 28 * 28),
        File("train-labels-idx1-ubyte", labels, 8 + 60_000),
        classes,
        mirrors,
    )


NAMED = {
    "mnist": _set(
        "mnist",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        tuple("0123456789"),
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": _set(
        "fashion-mnist",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
}


def fetch(named: NamedSet, root: Path, download_from: str | None, progress: Progress | None) -> tuple[Path, Path]:
    """The images and labels files of a named set below `root`, downloaded if they are not there.

    download_from: an http(s) or file URL or a folder, used instead of the public ones. Raises DataError that tells
    what became of every mirror.
    """
    folder = root / "downloads" / named.name
    mirrors = named.mirrors if download_from is None else (download_from,)
    return _fetch(named.images, folder, mirrors, progress), _fetch(named.labels, folder, mirrors, progress)


def _fetch(file: File, folder: Path, mirrors: tuple[str, ...], progress: Progress | None) -> Path:
    packed = folder / f"{file.name}.gz"
    there = next((path for path in (folder / file.name, packed) if path.is_file()), None)
    if there is not None:
        return there  # its digest is checked when it is read
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in mirrors:
        part = folder / f".{secrets.token_hex(8)}.part"
        try:
            with _open_mirror(mirror, file) as (stream, total), part.open("wb") as out:
                _copy(stream, out, file, total, progress)
            read_idx(part, file.sha256)
            target = packed if is_gzip(part) else folder / file.name
            os.replace(part, target)
            return target
        except DataError as error:
            failures.append(f"{printable(mirror)} ({str(error).replace(str(part), 'what it sent')})")
        except (OSError, HTTPException, ValueError) as error:
            reason = printable(" ".join(str(error).split())) or type(error).__name__
            failures.append(f"{printable(mirror)} ({reason})")
        finally:
            part.unlink(missing_ok=True)
    raise DataError(
        f"cannot download {packed.name}: {'; '.join(failures)}; pass --download-from URL-OR-FOLDER, or put the "
        f"file into {printable(folder)} by hand"
    )


@contextmanager
def _open_mirror(mirror: str, file: File) -> Iterator[tuple[BinaryIO, int]]:
    """A stream of the file on a mirror, and its length in bytes (0: unknown)."""
    scheme = urlsplit(mirror).scheme if "://" in mirror else ""
    if scheme in ("http", "https"):
        request = Request(f"{mirror.rstrip('/')}/{file.name}.gz", headers={"User-Agent": "edgegan"})
        with urlopen(request, timeout=TIMEOUT_S) as response:
            yield response, int(response.headers.get("Content-Length") or 0)
    elif scheme in ("", "file"):
        folder = Path(url2pathname(urlsplit(mirror).path) if scheme else mirror)
        beside = (folder / f"{file.name}.gz", folder / file.name)
        path = next((path for path in beside if path.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"neither {file.name}.gz nor {file.name} is there")
        with path.open("rb") as stream:
            yield stream, path.stat().st_size
    else:
        raise ValueError(f"its scheme is {scheme}; valid: http, https, file, or a folder")


def _copy(stream: BinaryIO, out: BinaryIO, file: File, total: int, progress: Progress | None) -> None:
    done = 0
    while block := stream.read(_BLOCK):
        done += len(block)
        if done > file.size + _SLACK:
            raise ValueError(f"it sends more than the {file.size} bytes of this file")
        out.write(block)
        if progress:
            progress(done, total, f"downloading {file.name}")
    if done < total:
        raise ValueError(f"it sent {done} of {total} bytes")
