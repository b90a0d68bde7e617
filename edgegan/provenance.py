"""Where a picture comes from: what `edgegan sample` writes into a PNG file, and `edgegan reproduce` reads.

Text chunks, a keyword each, so that any program that shows them (identify, exiftool) shows them in words:

    Software            edgegan and its version
    edgegan-model       SHA-256 of the model file
    edgegan-seed        the seed
    edgegan-index       the number of the picture, or of a grid's first
    edgegan-label       indices of its classes, in turn by the pictures' numbers; absent: drawn from the seed, or none
    edgegan-truncation  of latents; absent: none           edgegan-psi   of the style space; absent: none
    edgegan-grid        of a grid: pictures, columns, zoom and gap, as "16 4 2 2"
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import edgegan
from edgegan.errors import DataError, printable

_PREFIX = "edgegan-"


@dataclass(frozen=True)
class Grid:
    """How a grid is laid out: how many pictures, and see `edgegan.image.blank_sheet`."""

    count: int
    columns: int
    zoom: int
    gap: int


@dataclass(frozen=True)
class Provenance:
    """All that decides a picture, or a grid of pictures from `index` on."""

    model: str  # SHA-256 in hexadecimal
    seed: int
    index: int
    labels: tuple[int, ...] = ()
    truncation: float | None = None
    psi: float | None = None
    grid: Grid | None = None

    def texts(self) -> dict[str, str]:
        """The text chunks of this origin."""
        found = {"model": self.model, "seed": str(self.seed), "index": str(self.index)}
        if self.labels:
            found["label"] = ",".join(map(str, self.labels))
        if self.truncation is not None:
            found["truncation"] = repr(self.truncation)
        if self.psi is not None:
            found["psi"] = repr(self.psi)
        if self.grid is not None:
            found["grid"] = f"{self.grid.count} {self.grid.columns} {self.grid.zoom} {self.grid.gap}"
        software = {"Software": f"edgegan {edgegan.__version__}"}
        return software | {_PREFIX + name: value for name, value in found.items()}

    @classmethod
    def of_texts(cls, texts: Mapping[str, str], source: str) -> "Provenance":
        """The origin that the text chunks of the file `source` tell.

        Raises DataError that names file and keyword if one is missing or not valid.
        """

        def read(name: str) -> str | None:
            return texts.get(_PREFIX + name)

        def whole(name: str, text: str | None, high: int) -> int:
            if text is None or not text.isdecimal() or len(text) > 20 or int(text) > high:
                raise _invalid(source, name, text, f"a whole number from 0 to {high}")
            return int(text)

        def real(name: str) -> float | None:
            text = read(name)
            try:
                number = None if text is None else float(text)
            except ValueError:
                number = math.nan
            if number is not None and not math.isfinite(number):
                raise _invalid(source, name, text, "a finite number")
            return number

        model = read("model")
        if model is None:
            raise DataError(
                f"{source}: it does not say which model drew it; 'edgegan sample' writes that into PNG files"
            )
        labels = read("label")
        layout = read("grid")
        return cls(
            model=model,
            seed=whole("seed", read("seed"), 2**64 - 1),
            index=whole("index", read("index"), 2**64 - 1),
            labels=tuple(whole("label", part, 2**31) for part in labels.split(",")) if labels else (),
            truncation=real("truncation"),
            psi=real("psi"),
            grid=None if layout is None else _grid(source, layout),
        )


def _grid(source: str, text: str) -> Grid:
    parts = text.split(" ")
    if len(parts) != 4 or not all(part.isdecimal() and len(part) <= 9 for part in parts):
        raise _invalid(source, "grid", text, "four whole numbers of at most 9 digits")
    count, columns, zoom, gap = map(int, parts)
    if not (count and columns and zoom):
        raise _invalid(source, "grid", text, "pictures, columns and zoom of at least 1")
    return Grid(count, columns, zoom, gap)


def _invalid(source: str, name: str, text: str | None, valid: str) -> DataError:
    shown = "missing" if text is None else f"'{printable(text[:50])}'"
    return DataError(f"{source}: its text {_PREFIX}{name} is {shown}; valid: {valid}")
