"""Picture files to uint8 pixels, upright and whole, or one line that says why not."""

import os
import stat
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from edgegan.errors import DataError, printable
from edgegan.image import U8

if TYPE_CHECKING:
    from PIL import Image

# Only formats with plain, widely used decoders: Pillow would start Ghostscript for an EPS named .png.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
MAX_PIXELS = 178_956_970  # of one picture: where Pillow stops, too, for fear of a decompression bomb

_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257  # tags
_STRIP = 2**18  # pixels that are taken over from Pillow at once
_READING, _READING_WEBP = 8, 20  # bytes that Pillow takes for each pixel while it reads a file


class Kind(NamedTuple):
    """What a picture is before it is decoded. Pictures of one kind can share a batch."""

    height: int
    width: int
    channels: int  # 1 if it is stored as grey, else 3
    alpha: bool  # whether it says how opaque it is
    reading: int = _READING  # bytes for each pixel while it is read


@dataclass(frozen=True)
class Pixels:
    """A decoded picture: its colours, and how opaque it is where the file says so."""

    colours: U8  # [H, W, C], C = 1 if it is stored as grey, else 3; of any strides
    alpha: U8 | None = None  # [H, W]


class Opened:
    """A picture file whose header was read: its kind is known before its pixels are decoded.

    But for a PNG with metadata after its pixels, which Pillow reads by decoding them.
    """

    def __init__(self, source: str | os.PathLike[str] | IO[bytes], name: str = "the picture") -> None:
        """source: a path, or a binary file that can be read and sought, and its name for messages. Raises DataError."""
        from PIL import Image

        self.name = os.fspath(source) if isinstance(source, str | os.PathLike) else name
        self._file = _regular_file(self.name) if isinstance(source, str | os.PathLike) else source
        try:
            self._image: Image.Image = Image.open(self._file, formats=FORMATS)
            if self._image.width * self._image.height > MAX_PIXELS:
                raise ValueError(f"{self._image.width} x {self._image.height} pixels; at most {MAX_PIXELS} are read")
            w, h = _stored_size(self._image)
            late = self._image.format == "PNG" and _has_late_metadata(self._file)
            height, width = (w, h) if _orientation(self._image, decode=late) >= 5 else (h, w)
            channels = 1 if _is_grey(self._image) else 3
            reading = _READING_WEBP if self._image.format == "WEBP" else _READING
            self.kind = Kind(height, width, channels, self._image.has_transparency_data, reading)
        except Exception as error:
            reason = "an empty file" if _is_empty(self._file) else complaint(error)
            self._file.close()
            raise DataError(f"{self.name}: {reason}") from None

    def read(self) -> Pixels:
        """Decode it, and close the file. Raises DataError."""
        try:
            pixels = from_pillow(self._image)
            if (*pixels.colours.shape, pixels.alpha is not None) != self.kind[:4]:
                raise ValueError("its pixels are not what its header says")
            return pixels
        except Exception as error:
            raise DataError(f"{self.name}: {complaint(error)}") from None
        finally:
            self.close()

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, and of Pillow's pixels."""
        self._image.close()
        self._file.close()


def from_pillow(image: "Image.Image") -> Pixels:
    """The pixels of a picture of any of Pillow's modes, upright, with 8 bits a channel.

    16 bits of grey are rounded to 8; those of colours Pillow has cut to 8. Palettes, CMYK and the like become RGB, but
    a palette of nothing but greys becomes grey; of an animation it is the first frame. Colour profiles are not applied.
    Raises ValueError for floating-point pixels and for integers beyond 16 bits, and whatever Pillow raises for a file
    that is damaged.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits a channel")
    image.load()  # first: Pillow turns a TIFF itself then, and says so
    grey, transparent, orientation = _is_grey(image), image.has_transparency_data, _orientation(image)
    mode = "LA" if grey and transparent else "L" if grey else "RGBA" if transparent else "RGB"
    array = np.empty((image.height, image.width, len(mode)), np.uint8)
    rows = max(1, _STRIP // image.width)  # of the whole picture, Pillow would make several copies
    for y in range(0, image.height, rows):
        part = image.crop((0, y, image.width, min(y + rows, image.height)))
        if image.mode.startswith("I"):
            made = _of_integers(part, len(mode))
        else:
            made = np.asarray(part if part.mode == mode else _converted(part, mode))
        array[y : y + rows] = made.reshape(part.height, part.width, len(mode))
    colours, alpha = (array[..., :-1], array[..., -1]) if transparent else (array, None)
    return Pixels(_upright(colours, orientation), None if alpha is None else _upright(alpha, orientation))


def _of_integers(image: "Image.Image", channels: int) -> U8:
    """Grey of 16 bits, and alpha where there are two channels: [H, W, channels]."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit pixels; save it with 8 or 16 bits a channel")
    made = np.full((*values.shape, channels), 255, np.uint8)
    made[..., 0] = (values.astype(np.uint32) * 255 + 32767) // 65535
    transparent = image.info.get("transparency")
    if channels == 2 and isinstance(transparent, int):
        made[..., 1][values == transparent] = 0
    return made


def _converted(image: "Image.Image", mode: str) -> "Image.Image":
    # Pillow turns a grey palette, or grey with a transparent shade, into colours with alpha before it is grey again.
    return image.convert("RGBA").convert("LA") if mode == "LA" and image.mode != "La" else image.convert(mode)


def _upright(array: U8, orientation: int) -> U8:
    """A view of it as EXIF's orientation (1 to 8) says how to look at it."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _stored_size(image: "Image.Image") -> tuple[int, int]:
    """Width and height before the picture is turned; Pillow's `size` of a TIFF may be those after."""
    tags = getattr(image, "tag_v2", None)
    return (int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])) if tags else image.size


def _orientation(image: "Image.Image", *, decode: bool = True) -> int:
    """EXIF's orientation, 1 to 8. decode: whether the pixels may be decoded to find it, as Pillow does of a PNG."""
    from PIL import Image

    try:
        found = (image.getexif() if decode else Image.Image.getexif(image)).get(_EXIF_ORIENTATION)
    except Exception:  # damaged camera data: the pixels are whole, and viewers show them unturned too
        found = None
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _has_late_metadata(file: IO[bytes]) -> bool:
    """Whether a PNG says more after its pixels, such as how to turn them."""
    place, pixels, late = file.tell(), False, False
    file.seek(8)
    while not late and len(head := file.read(8)) == 8:
        pixels = pixels or head[4:] == b"IDAT"
        late = pixels and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tRNS")
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    file.seek(place)
    return late


def _is_grey(image: "Image.Image") -> bool:
    if image.mode == "P":
        from PIL import Image

        # The palette on another picture, since Pillow would decode this one.
        probe = Image.new("P", (1, 1))
        probe.palette = copy(image.palette)
        if probe.palette is not None:
            probe.palette.dirty = 1
        palette = np.frombuffer(bytes(probe.getpalette() or ()), np.uint8).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def complaint(error: Exception) -> str:
    """Why a picture could not be read, on one line."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its text is the address of a buffer
        return f"not a picture, or not one of {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    return printable(" ".join(str(error).split())) or f"it cannot be decoded ({type(error).__name__})"


def _regular_file(path: str) -> IO[bytes]:
    """Opened without blocking and then asked what it is: a pipe must not hang us. Raises DataError."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, not a picture") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataError(f"{path}: not a regular file")
    return file


def _is_empty(file: IO[bytes]) -> bool:
    try:
        file.seek(0)
        return not file.read(1)
    except (OSError, ValueError):
        return False


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name is that of a picture that may be read."""
    return Path(path).suffix.lower() in SUFFIXES
