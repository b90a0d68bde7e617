"""Files and folders of pictures through a model: each whole or not at all, and on where it stopped."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgegan
from edgegan._files import atomic_write, check_output, shared_folder
from edgegan._folder import enter
from edgegan._order import Crew
from edgegan.decode import Kind, Opened, Pixels, is_picture
from edgegan.errors import ArgumentError, DataError, EdgeGANError
from edgegan.image import U8, check_holds, encode_image, encode_png, save_pngs
from edgegan.tiles import Layout
from edgegan.translate import Tell, Tiling, joined, layout_of, sharing, translate_pixels

if TYPE_CHECKING:
    from edgegan.model import Generator

MANIFEST = "translated.json"  # what the pictures in a folder were made with
BATCH_PIXELS = 2**20  # of the pictures of one batch: larger ones gain nothing from company
ENCODING = {"png": 0, "jpg": 6, "webp": 48}  # bytes that each pixel takes while its file is made, besides the picture

Complain = Callable[[str], None]  # is told what is wrong with one picture, on one line


@dataclass(frozen=True)
class Job:
    """A file and what it becomes."""

    source: str
    target: str


@dataclass(frozen=True)
class Work:
    """How pictures are translated, and into which format."""

    generator: "Generator"
    tiling: Tiling
    format: str  # png, jpg or webp

    def identity(self) -> dict[str, Any]:
        """What decides a file, but for where the seams of tiles lie."""
        foreign = self.generator.foreign
        return {
            "edgegan": edgegan.__version__,
            "model": self.generator.digest,
            "tile": self.tiling.tile,
            "overlap": self.tiling.overlap,
            "format": self.format,
            "foreign": None if foreign is None else {**vars(foreign), "range": list(foreign.range)},
        }

    def layout(self, kind: Kind) -> Layout:
        """How a picture is cut. Raises as `layout_of`, and ArgumentError for what the format cannot hold."""
        scale = self.generator.spec.scale
        check_holds(f".{self.format}", kind.height * scale, kind.width * scale, alpha=kind.alpha)
        return layout_of(self.generator, kind, 1, self.tiling)

    def make(self, pictures: Sequence[Pixels], tell: Tell | None = None) -> list[U8]:
        """What pictures of one kind become, each [H, W, C] with the channels of a file."""
        colours = _stacked([picture.colours for picture in pictures])
        alphas = [picture.alpha for picture in pictures if picture.alpha is not None]
        alpha = _stacked(alphas) if alphas else None
        return list(joined(*translate_pixels(self.generator, colours, alpha, self.tiling, tell)))

    def encode(self, array: U8) -> bytes:
        """The file of [H, W, C]. Raises ArgumentError for what its format cannot hold."""
        if self.format == "png":
            return encode_png(array)
        return encode_image(with_colours(array), f".{self.format}")

    def save(self, path: str, array: U8) -> None:
        """Write that file, whole or not at all."""
        if self.format == "png":
            check_output(path)
            temporary = os.path.join(os.path.dirname(os.path.realpath(path)), f".edgegan-{os.urandom(8).hex()}.tmp")
            try:
                save_pngs(array[None], [(os.path.realpath(path), {})], temporary)
            except OSError as error:
                error.filename = path
                raise
        else:
            data = self.encode(array)
            with atomic_write(path) as file:
                file.write(data)


def _stacked(arrays: Sequence[U8]) -> U8:
    return np.stack(arrays) if len(arrays) > 1 else arrays[0][None]  # one large picture is not copied


def with_colours(array: U8) -> U8:
    """Grey with alpha as RGBA, for formats without it; others as they are."""
    return array[..., [0, 0, 0, 1]] if array.shape[-1] == 2 else array


def find_jobs(inputs: Iterable[str], folder: str, format: str, complain: Complain) -> list[Job]:
    """The pictures among files and folders, and their files in `folder`, in order.

    Below a folder the tree is kept; hidden files, and those whose names are not of pictures, are passed over. Files
    that would get one name, a.png and a.jpg, keep theirs before the new suffix: a.png.png. Raises ArgumentError where
    that does not tell them apart.
    """
    found: dict[str, str] = {}  # source -> where it lies below the folder
    taken: dict[str, str] = {}  # such a place, or a file that is to be made -> its source

    def take(place: str, source: str) -> None:
        other = taken.setdefault(place, source)
        if other != source:
            made = os.path.join(folder, place)
            raise ArgumentError(f"{other} and {source} would both be {made}; translate one of them into another folder")

    for given in inputs:
        for source, place in _walk(given, folder, complain) if os.path.isdir(given) else [(given, Path(given).name)]:
            take(place, source)
            found[source] = place
    names = [os.path.splitext(place)[0] for place in found.values()]
    times = Counter(names)
    jobs = []
    taken.clear()
    for (source, place), name in zip(found.items(), names, strict=True):
        made = f"{place if times[name] > 1 else name}.{format}"
        take(made, source)
        jobs.append(Job(source, os.path.join(folder, made)))
    return jobs


def _walk(top: str, excluded: str, complain: Complain) -> Iterator[tuple[str, str]]:
    """The pictures below a folder, and their paths from there."""

    def failed(error: OSError) -> None:
        complain(f"{os.fsdecode(error.filename)}: {error.strerror}")

    for folder, folders, files in os.walk(top, onerror=failed):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) != os.path.realpath(excluded)
        )
        for name in sorted(files):
            if not name.startswith(".") and is_picture(name):
                path = os.path.join(folder, name)
                yield path, os.path.relpath(path, top)


def translate_folder(
    work: Work, jobs: Sequence[Job], folder: str, tell: Tell, complain: Complain, *, overwrite: bool = False
) -> None:
    """A file for each job, in a folder that holds nothing else; what is there already is not made again.

    tell: is told how many are done, broken ones among them, and how many of these were there. complain: is told of each
    that could not be translated. Raises ArgumentError for a folder with other files in it, OSError if the disk refuses.
    """
    os.makedirs(folder, exist_ok=True)
    done = there = 0
    with shared_folder(folder, *{os.path.dirname(job.target) for job in jobs}):
        enter(folder, MANIFEST, work.identity())

        def write(names: Sequence[Job], arrays: Sequence[U8]) -> None:
            for job, array in zip(names, arrays, strict=True):
                try:
                    os.makedirs(os.path.dirname(job.target), exist_ok=True)
                    work.save(job.target, array)
                except EdgeGANError as error:
                    complain(f"{job.source}: {error}")

        with Crew[None](1) as crew:  # encodes and writes while the next ones are translated
            for names, opened in _groups(work, jobs, overwrite, complain):
                if not opened:
                    there += not overwrite and os.path.exists(names[0].target)
                    done += len(names)
                    tell(done, there)
                    continue
                kept, arrays = _translated(work, names, opened, complain)
                if crew:
                    crew.result()
                crew.submit(partial(write, kept, arrays))
                if work.tiling.max_memory is not None:
                    crew.result()
                del arrays
                done += len(names)
                tell(done, there)
            if crew:
                crew.result()


def _groups(
    work: Work, jobs: Sequence[Job], overwrite: bool, complain: Complain
) -> Iterator[tuple[list[Job], list[Opened]]]:
    """Pictures of one kind that follow each other, as many as a batch takes; without `Opened` what needs no work."""
    names: list[Job] = []
    opened: list[Opened] = []
    for job in jobs:
        one: Opened | None = None
        if overwrite or not os.path.exists(job.target):
            try:
                one = Opened(job.source)
            except DataError as error:
                complain(str(error))
        if one is None:
            yield [job], []
            continue
        if opened and (opened[0].kind != one.kind or not _share(work, one.kind, len(opened) + 1)):
            yield names, opened
            names, opened = [], []
        names.append(job)
        opened.append(one)
    if opened:
        yield names, opened


def _share(work: Work, kind: Kind, n: int) -> bool:
    """Whether n pictures may share a batch: that they are cut as one alone is, too."""
    if n > work.tiling.batch or n * kind.height * kind.width > BATCH_PIXELS:
        return False
    try:
        alone, together = (layout_of(work.generator, kind, held, work.tiling) for held in (1, n))
        return alone == together and sharing(work.generator, kind, n, work.tiling) == n
    except EdgeGANError:
        return False


def _translated(
    work: Work, names: Sequence[Job], opened: Sequence[Opened], complain: Complain
) -> tuple[list[Job], list[U8]]:
    """The jobs of a group that went well, and their pictures."""
    kept: list[Job] = []
    pictures: list[Pixels] = []
    try:
        for job, one in zip(names, opened, strict=True):
            try:
                work.layout(one.kind)  # whether it fits, before it is decoded
                pictures.append(one.read())
                kept.append(job)
            except DataError as error:
                complain(str(error))
            except EdgeGANError as error:
                complain(f"{one.name}: {error}")
        return kept, work.make(pictures) if pictures else []
    except EdgeGANError as error:
        for job in kept:
            complain(f"{job.source}: {error}")
        return [], []
    finally:
        for one in opened:
            one.close()
