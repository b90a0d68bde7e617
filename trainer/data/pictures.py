"""One picture: from a file of any accepted format to uint8 pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgegan.decode import FORMATS
from edgegan.decode import SUFFIXES as SUFFIXES  # for those who ask which files are pictures
from edgegan.errors import printable

Progress = Callable[[int, int, str], None]

# Pictures that are not read. Passing over them as over a .txt would shrink the set in silence: errors.
OTHER_SUFFIXES = frozenset(
    {".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".svgz", ".psd", ".xcf"}
    | {".tga", ".ico", ".icns", ".pcx", ".exr", ".hdr", ".dds", ".eps", ".qoi"}
    | {".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
)
# How a picture that is no square becomes one: its central square; the whole of it between bars of white, on which
# transparent pictures are laid, too; or distorted. Or many: cut as it is, without resizing.
FITS = ("crop", "pad", "stretch", "tiles")
MAX_TILES = 512  # of one picture
MAX_PIXELS = 89_478_485  # of one picture: 256 MiB as RGB, Pillow's own measure of a decompression bomb
MAX_BYTES = 256 << 20  # of one file

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Treatment:
    """What becomes of a decoded picture."""

    resolution: int | None  # pixels a side; None: as it is
    channels: int | None  # 1 or 3; None: 1 if it is stored as grey, else 3
    fit: str  # one of FITS: how it becomes a square of `resolution`, or several

    @property
    def cuts(self) -> bool:
        """Whether a picture becomes several."""
        return self.fit == "tiles"

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Whether pictures of `shape`, [..., H, W, C], stay as they are."""
        side = self.resolution
        return side in (None, shape[-3]) and side in (None, shape[-2]) and self.channels in (None, shape[-1])


def decode(data: bytes) -> Image.Image:
    """The picture upright, without transparency, in 8 bits: mode L or RGB. Raises anything if it is broken.

    L if it is stored as grey: also in a palette of nothing but greys. Transparent pictures are laid on white. Of an
    animation the first frame is taken. Colour profiles are ignored.
    """
    if not data:
        raise ValueError("an empty file")
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    image = Image.open(BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS} are read")
    image.load()
    return _upright(_eight_bits(image), image)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _grey_of_16_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits a channel")
    mode = "L" if _is_grey(image) else "RGB"
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.frombuffer(bytes(image.getpalette() or ()), np.uint8).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La")


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit pixels; save it with 8 or 16 bits a channel")
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _upright(image: Image.Image, original: Image.Image) -> Image.Image:
    if not original.info and original.format != "TIFF":
        return image  # quickly: most small pictures say nothing of a camera
    try:
        orientation = original.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # damaged camera data: the pixels are whole, and viewers show them unturned too
        orientation = None
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def pixels(image: Image.Image, how: Treatment) -> NDArray[np.uint8]:
    """[1, H, W, C] uint8 of a picture in mode L or RGB; H = W = resolution unless that is None. Or its tiles [k, ...].

    Resized with Lanczos, which averages over the pixels that it merges. RGB becomes grey as ITU-R 601 luma.
    """
    if how.fit == "tiles":
        assert how.resolution is not None
        return _tiles(pixels(image, Treatment(None, how.channels, "crop"))[0], how.resolution)
    if how.resolution is not None and image.size != (how.resolution, how.resolution):
        image = _square(image, how.resolution, how.fit)
    if how.channels is not None and len(image.getbands()) != how.channels:
        image = image.convert("L" if how.channels == 1 else "RGB")
    return np.frombuffer(image.tobytes(), np.uint8).reshape(1, image.height, image.width, -1)


def _square(image: Image.Image, side: int, fit: str) -> Image.Image:
    width = height = side
    if fit == "crop":
        cut = min(image.size)
        left, top = (image.width - cut) // 2, (image.height - cut) // 2
        # Not resize(box=...), whose filter reaches over the edge of the box.
        image = image.crop((left, top, left + cut, top + cut))
    elif fit == "pad":
        width, height = (max(1, round(side * length / max(image.size))) for length in image.size)
    # reducing_gap averages whole pixels first: several times as fast, and within 1 of the full filter.
    image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if image.size == (side, side):
        return image
    square = Image.new(image.mode, (side, side), "white")
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def _tiles(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[H, W, C] -> [k, side, side, C]: the central ones that do not overlap, or MAX_TILES spread evenly over these."""
    height, width, channels = picture.shape
    rows, columns = height // side, width // side
    if not rows or not columns:
        raise ValueError(f"{width} x {height} pixels: smaller than a tile of {side} x {side}")
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    cut = picture[top : top + rows * side, left : left + columns * side]
    tiles = cut.reshape(rows, side, columns, side, channels).swapaxes(1, 2).reshape(-1, side, side, channels)
    return tiles[np.linspace(0, len(tiles) - 1, min(len(tiles), MAX_TILES)).astype(np.int64)]


def complaint(error: Exception) -> str:
    """Why a picture could not be read, on one line."""
    if isinstance(error, UnidentifiedImageError):  # its text is the address of a buffer
        return f"not a picture, or not one of {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    return printable(" ".join(str(error).split())) or type(error).__name__
