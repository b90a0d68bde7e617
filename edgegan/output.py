"""Where pictures go: a grid, an array, or a file each; whole or not at all, and on from where they stopped."""

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

import edgegan
from edgegan import noise
from edgegan._files import resumable_write, shared_folder, write_all, write_whole
from edgegan._folder import enter
from edgegan._order import in_order
from edgegan.image import U8, columns_of, comfortable_zoom, encode_image, save_image, save_pngs
from edgegan.model import Generator
from edgegan.provenance import Grid, Provenance
from edgegan.session import BATCH

MANIFEST = "samples.json"  # what the pictures in a folder are, so that no others come among them
GAP = 2  # pixels between the pictures of a grid
_PAGE = 4096

Tell = Callable[[int, int], None]  # is told how many pictures are done, and how many of these were there already


@dataclass(frozen=True)
class Request:
    """Pictures start .. start + n - 1 of a seed, and all that decides them."""

    generator: Generator
    n: int
    seed: int = 0
    start: int = 0
    labels: tuple[int, ...] = ()  # picture i gets the i-th, over and over; none: drawn from the seed
    truncation: float | None = None
    psi: float | None = None
    batch: int = BATCH

    def check(self) -> None:
        """Raise ArgumentError for what the generator would refuse."""
        self.generator.stream(
            self.n, self.seed, start=self.start, truncation=self.truncation, psi=self.psi, batch=self.batch
        )

    def part(self, k: int, of: int) -> "Request":
        """The k-th of `of` contiguous parts, as equal as whole batches allow, so that the pictures stay the same."""
        least, more = divmod(-(-self.n // self.batch), of)
        first = least * (k - 1) + min(k - 1, more)
        begin, end = (min(self.n, batches * self.batch) for batches in (first, first + least + (k <= more)))
        return replace(self, start=self.start + begin, n=end - begin)

    def batches(self, skip: int = 0) -> Iterator[tuple[int, int]]:
        """The first number and the count of each batch, from picture start + skip on."""
        for done in range(skip, self.n, self.batch):
            yield self.start + done, min(self.batch, self.n - done)

    def draw(self, first: int, count: int) -> U8:
        """The pictures of one batch, [count, H, W, C]."""
        turn = self.labels_of(first, count) if self.labels else None
        return self.generator.sample(
            count, self.seed, start=first, labels=turn, truncation=self.truncation, psi=self.psi, batch=self.batch
        )

    def drawn(self, skip: int = 0) -> Iterator[U8]:
        """The pictures of each batch from picture start + skip on, in order; drawn by the generator's callers."""
        return in_order((partial(self.draw, *batch) for batch in self.batches(skip)), self.generator.callers)

    def labels_of(self, first: int, count: int) -> list[int] | None:
        """The class of each picture, chosen or drawn from the seed; None if the model has no classes.

        By the picture's own number, not its place in this call: `start` must not change a picture.
        """
        if self.labels:
            return [self.labels[i % len(self.labels)] for i in range(first, first + count)]
        classes = self.generator.spec.classes
        drawn: list[int] = noise.labels(self.seed, count, len(classes), start=first).tolist() if classes else []
        return drawn or None

    def origin(self, index: int, labels: tuple[int, ...], grid: Grid | None = None) -> Provenance:
        """What a file says about where it comes from."""
        return Provenance(self.generator.digest, self.seed, index, labels, self.truncation, self.psi, grid)

    def identity(self) -> dict[str, Any]:
        """What decides picture i, whichever of them are drawn."""
        foreign = self.generator.foreign
        return {
            "edgegan": edgegan.__version__,
            "model": self.generator.digest,
            "seed": self.seed,
            "labels": list(self.labels) or None,
            "truncation": self.truncation,
            "psi": self.psi,
            "foreign": None if foreign is None else {**vars(foreign), "range": list(foreign.range)},
        }

    def key(self) -> str:
        """What decides an array of them, to the last bit."""
        how = {"start": self.start, "n": self.n, "batch": self.batch, "provider": self.generator.provider}
        return json.dumps(self.identity() | how)


def draw_grid(request: Request, tell: Tell) -> tuple[U8, dict[str, str]]:
    """One sheet [H', W', C], and its texts."""
    zoom = comfortable_zoom(request.generator.spec.image_size)
    sheet = request.generator.grid(
        request.n,
        request.seed,
        start=request.start,
        labels=request.labels_of(request.start, request.n) if request.labels else None,
        truncation=request.truncation,
        psi=request.psi,
        batch=request.batch,
        zoom=zoom,
        gap=GAP,
        progress=lambda done: tell(done, 0),
    )
    layout = Grid(request.n, columns_of(request.n), zoom, GAP)
    return sheet, request.origin(request.start, request.labels, layout).texts()


def save_grid(path: str, request: Request, tell: Tell) -> None:
    """A grid as PNG, JPEG or WebP by the suffix of `path`."""
    sheet, texts = draw_grid(request, tell)
    save_image(path, sheet, texts=texts)


def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _shape(request: Request) -> tuple[int, ...]:
    return (request.n, *request.generator.spec.image_size, request.generator.spec.channels)


def write_stream(file: IO[bytes], request: Request, format: str, tell: Tell) -> None:
    """A grid, or an array ("npy"), into a file that need not be seekable."""
    if format == "npy":
        _write_images(file, request, tell)
    else:
        sheet, texts = draw_grid(request, tell)
        file.write(encode_image(sheet, f".{format}", texts=texts))
    file.flush()


def _write_images(file: IO[bytes], request: Request, tell: Tell) -> None:
    file.write(_npy_header("|u1", _shape(request)))
    done = 0
    for images in request.drawn():
        file.write(images.tobytes())
        done += len(images)
        tell(done, 0)


def save_npy(path: str, request: Request, tell: Tell) -> None:
    """An array uint8 [n, H, W, C]; the same request goes on where an interrupted one stopped."""
    header = _npy_header("|u1", _shape(request))
    size = math.prod(_shape(request)[1:])
    with resumable_write(path, request.key(), len(header) + request.batch * size) as file:
        handle = file.fileno()
        there = _already(handle, header, size, request)
        os.truncate(handle, len(header) + there * size)
        os.lseek(handle, 0, os.SEEK_END)
        tell(there, there)
        done = there
        for images in request.drawn(there):
            write_all(handle, images.tobytes())
            done += len(images)
            tell(done, there)


def _already(handle: int, header: bytes, size: int, request: Request) -> int:
    """How many pictures an interrupted request left in the file, in whole batches; writes the header if it has none."""
    if os.read(handle, len(header)) != header:
        os.lseek(handle, 0, os.SEEK_SET)
        write_all(handle, header)
        return 0
    whole = min(request.n, (os.fstat(handle).st_size - len(header)) // size)
    return whole if whole == request.n else whole // request.batch * request.batch


def save_npz(path: str, request: Request, tell: Tell) -> None:
    """Arrays by name: images uint8 [n, H, W, C], labels int64 [n] if there are classes, seed, start. At flat memory."""
    import zipfile  # here, as other imports in this file: each takes milliseconds of every start

    with resumable_write(path, request.key(), None) as file:
        file.truncate(0)
        with zipfile.ZipFile(file, "w") as archive:
            # A ZipInfo has a fixed date, so that the same pictures are the same file.
            with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as member:
                _write_images(member, request, tell)
            if request.generator.spec.classes:
                with archive.open(zipfile.ZipInfo("labels.npy"), "w", force_zip64=True) as member:
                    member.write(_npy_header("<i8", (request.n,)))
                    for first, count in request.batches():
                        member.write(np.array(request.labels_of(first, count), "<i8").tobytes())
            for name, number in (("seed", request.seed), ("start", request.start)):
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _npy_header("<u8", ()) + number.to_bytes(8, "little"))


def save_folder(path: str, request: Request, format: str, tell: Tell) -> None:
    """A file each, named by the picture's number; what is there already is not drawn again.

    Each thread draws a batch, encodes and writes it; where the model takes one caller, one draws while another writes.
    Raises ArgumentError for a folder that holds other pictures.
    """
    from threading import Lock, Semaphore

    with suppress(FileExistsError):
        os.mkdir(path)
    identity = request.identity() | {"format": format}
    with shared_folder(path):
        there = _Present(path, format, request) if enter(path, MANIFEST, identity) else None
        callers = request.generator.callers
        drawing, counting = Semaphore(callers), Lock()
        token = os.urandom(8).hex()
        skipped = written = 0

        def work(first: int, count: int, wanted: Sequence[int]) -> None:
            nonlocal written
            with drawing:
                images = request.draw(first, count)
            labels = request.labels_of(first, count)
            names = {i: os.path.join(path, _name(i, format)) for i in wanted}
            temporary = os.path.join(path, f".edgegan-{token}-{first}.tmp")
            try:
                if format == "png":
                    files: list[tuple[str, dict[str, str]] | None] = [None] * count
                    for i, name in names.items():
                        origin = request.origin(i, (labels[i - first],) if labels else ())
                        files[i - first] = name, origin.texts()
                    save_pngs(images, files, temporary)
                else:
                    for i, name in names.items():
                        write_whole(temporary, name, encode_image(images[i - first], f".{format}"))
            except OSError as error:
                with counting:
                    written += sum(map(os.path.exists, names.values()))
                error.filename = path
                raise
            with counting:
                written += len(names)

        def tasks() -> Iterator[Callable[[], None]]:
            nonlocal skipped
            for first, count in request.batches():
                wanted = there.missing(first, count) if there else range(first, first + count)
                skipped += count - len(wanted)
                if wanted:
                    yield partial(work, first, count, wanted)
                else:
                    tell(skipped + written, skipped)

        try:
            with closing(in_order(tasks(), max(2, callers))) as batches:
                for _ in batches:
                    tell(skipped + written, skipped)
        finally:  # all threads are done here: what was drawn is written, even if Ctrl-C ended the drawing
            tell(skipped + written, skipped)


class _Present:
    """Which of a request's pictures a folder has: a byte for each, in pages for where there are any."""

    def __init__(self, folder: str, format: str, request: Request) -> None:
        self._pages: dict[int, bytearray] = {}
        wanted = range(request.start, request.start + request.n)
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, _, suffix = entry.name.partition(".")
                if suffix != format or not (stem.isascii() and stem.isdecimal() and len(stem) <= 20):
                    continue
                i = int(stem)
                if i in wanted and entry.name == _name(i, format):
                    self._pages.setdefault(i // _PAGE, bytearray(_PAGE))[i % _PAGE] = 1

    def missing(self, first: int, count: int) -> list[int]:
        """Those of pictures first .. first + count - 1 that are not there."""
        pages = self._pages
        return [
            i for i in range(first, first + count) if (page := pages.get(i // _PAGE)) is None or not page[i % _PAGE]
        ]


def _name(index: int, format: str) -> str:
    return f"{index:08d}.{format}"
