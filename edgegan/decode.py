"""Picture files to uint8 pixels, upright and whole, or one line that says why not."""

import os
import stat
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


class Kind(NamedTuple):
    """What a picture is before it is decoded. Pictures of one kind can share a batch."""

    height: int
    width: int
    channels: int  # 1 if it is stored as grey, else 3
    alpha: bool  # whether it says how opaque it is


@dataclass(frozen=True)
class Pixels:
    """A decoded picture: its colours, and how opaque it is where the file says so."""

    colours: U8  # [H, W, C], C = 1 if it is stored as grey, else 3; of any strides
    alpha: U8 | None = None  # [H, W]


class Opened:
    """A picture file whose header was read: its kind is known before its pixels are decoded."""

    def __init__(self, source: str | os.PathLike[str] | IO[bytes], name: str = "the picture") -> None:
        """source: a path, or a binary file that can be read and sought, and its name for messages. Raises DataError."""
        from PIL import Image

        self.name = os.fspath(source) if isinstance(source, str | os.PathLike) else name
        self._file = _regular_file(self.name) if isinstance(source, str | os.PathLike) else source
        try:
            self._image: Image.Image = Image.open(self._file, formats=FORMATS)
            if self._image.width * self._image.height > MAX_PIXELS:
                raise ValueError(f"{self._image.width} x {self._image.height} pixels; at most {MAX_PIXELS} are read")
            w, h = self._image.size
            height, width = (w, h) if _orientation(self._image) >= 5 else (h, w)
            channels = 1 if _is_grey(self._image) else 3
            self.kind = Kind(height, width, channels, self._image.has_transparency_data)
        except Exception as error:
            reason = "an empty file" if _is_empty(self._file) else complaint(error)
            self._file.close()
            raise DataError(f"{self.name}: {reason}") from None

    def read(self) -> Pixels:
        """Decode it, and close the file. Raises DataError."""
        try:
            return from_pillow(self._image)
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

    16 bits are rounded to 8; palettes, CMYK and the like become RGB, but a palette of nothing but greys becomes grey;
    of an animation it is the first frame. Colour profiles are not applied. Raises ValueError for floating-point pixels
    and for integers beyond 16 bits, and whatever Pillow raises for a file that is damaged.
    """
    grey, orientation = _is_grey(image), _orientation(image)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels; save it with 8 or 16 bits a channel")
        colours = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)[..., None]
        transparent = image.info.get("transparency")
        alpha = np.where(values == transparent, 0, 255).astype(np.uint8) if isinstance(transparent, int) else None
    elif image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits a channel")
    else:
        transparent = image.has_transparency_data
        mode = "LA" if grey and transparent else "L" if grey else "RGBA" if transparent else "RGB"
        array = np.asarray(image if image.mode == mode else _converted(image, mode))
        array = array if array.ndim == 3 else array[..., None]
        colours = array[..., :-1] if transparent else array
        alpha = array[..., -1] if transparent else None
    return Pixels(_upright(colours, orientation), None if alpha is None else _upright(alpha, orientation))


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


def _orientation(image: "Image.Image") -> int:
    try:
        found = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # damaged camera data: the pixels are whole, and viewers show them unturned too
        found = None
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _is_grey(image: "Image.Image") -> bool:
    if image.mode == "P":
        palette = np.frombuffer(bytes(image.getpalette() or ()), np.uint8).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def complaint(error: Exception) -> str:
    """Why a picture could not be read, on one line."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its text is the address of a buffer
        return f"not a picture, or not one of {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    return printable(" ".join(str(error).split())) or type(error).__name__


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
