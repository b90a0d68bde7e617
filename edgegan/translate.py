"""Image to image: what a model of the task "translate" makes of pictures of any size, within bounds of memory.

    load("sharper.onnx").translate(Image.open("photo.jpg")).save("sharper.png")

A picture is given to the network whole if the memory allows, else in tiles (edgegan/tiles.py). Where it has other
channels than the network it is converted, and back:

    network    grey picture                 RGB picture                   alpha
    grey       as it is                     its luminance, and grey out   enlarged as the picture is (bicubic)
    RGB        repeated, luminance taken    as it is                      enlarged as the picture is (bicubic)
    RGBA       repeated, luminance taken    as it is                      the network's, if the picture has any
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from edgegan.decode import Kind, Opened, Pixels, complaint, from_pillow
from edgegan.errors import ArgumentError, DataError, ModelError
from edgegan.image import F32, MAX_ELEMENTS, U8
from edgegan.session import BATCH
from edgegan.tiles import Axis, Layout, luminance, stitch

if TYPE_CHECKING:
    from PIL import Image

    from edgegan.gate import Cost
    from edgegan.spec import ModelSpec

Picture = Union[U8, "Image.Image", str, "os.PathLike[str]"]
Tell = Callable[[int, int], None]  # is told after each tile how many are done, and of how many

OVERLAP = 64  # pixels: that of one piece up to a receptive field of 32, and blended over 32 pixels beyond
# Sides of tiles to choose from; more are no faster, fewer compute too much twice.
SIDES = (2048, 1536, 1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32)
WORKING_MEMORY = 512 * 10**6  # bytes for the network's work where no cap is given
# What a process takes before it sees a picture, and for each byte of weights: the file, onnxruntime's own copy, and one
# that is packed. As measured, with some room.
BASE_MEMORY, WEIGHT_COPIES = 130 * 10**6, 3
ARENA = 2.2  # the most that onnxruntime took, over the tensors that are alive at once


class Network(Protocol):
    """What is asked of a model: an `edgegan.Generator` of the task "translate"."""

    spec: "ModelSpec"
    source: str

    @property
    def weight_bytes(self) -> int: ...

    @property
    def fixed_size(self) -> tuple[int | None, int | None]: ...

    def cost_of(self, size: tuple[int, int]) -> "Cost": ...

    def run(self, feed: dict[str, NDArray[Any]]) -> F32: ...


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut into tiles."""

    tile: int | None = None  # pixels a side; None: the picture whole if the memory allows, else the largest that does
    overlap: int | None = None  # of neighbours, pixels; None: 64, or a quarter of a smaller tile
    max_memory: int | None = None  # bytes of the whole process; None: 512 MB for the network's work
    batch: int = BATCH  # pictures of one size that share a run, at most: no more than are cut as one alone is
    encoding: int = 0  # bytes for each pixel of the result while its file is made, which max_memory has to allow for

    def check(self, generator: Network) -> None:
        """Raise ArgumentError for what this model cannot do, whatever the picture is."""
        multiple, fixed = generator.spec.size_multiple, generator.fixed_size
        for name, value, least in (("tile", self.tile, 1), ("overlap", self.overlap, 0)):
            if value is not None and (value < least or value % multiple):
                raise ArgumentError(f"{name} is {value}; valid for {generator.source}: multiples of {multiple}")
        if self.tile is not None and any(side not in (None, self.tile) for side in fixed):
            sides = " x ".join("any" if side is None else str(side) for side in reversed(fixed))
            raise ArgumentError(f"tile is {self.tile}, but {generator.source} takes {sides} pixels alone; leave it out")
        largest = min((side for side in (self.tile, *fixed) if side is not None), default=SIDES[0])
        if self.overlap is not None and 2 * self.overlap > largest:
            raise ArgumentError(f"overlap is {self.overlap}; valid: at most {largest // 2}, half of a tile")
        if self.max_memory is not None and self.max_memory < BASE_MEMORY:
            raise ArgumentError(f"max_memory is {_mb(self.max_memory)}; valid: {_mb(BASE_MEMORY)} or more")


def translate(generator: Network, picture: Picture, tiling: Tiling = Tiling(), tell: Tell | None = None) -> Any:
    """What the model makes of a picture, of the same kind, at `spec.scale` times its size.

    picture: a Pillow image, of any mode but floating point; uint8 [H, W], [H, W, C] or [n, H, W, C] with C = 1 grey, 2
    grey and alpha, 3 RGB or 4 RGBA; or the path of a file, for which a Pillow image comes back. Images and files are
    turned upright as their camera says. What becomes of channels that are not the model's: see above.

    The same picture and tiling give the same pixels on one device. Any number of threads may call it.

    Raises ArgumentError for an array or a tiling that is not valid, or a cap of memory that is too low; DataError for a
    file that cannot be read; ModelError for a model of another task, or a size that the network cannot take.
    """
    tiling.check(generator)
    if not isinstance(picture, np.ndarray):
        pixels = Opened(picture).read() if isinstance(picture, str | os.PathLike) else of_pillow(picture)
        alpha = None if pixels.alpha is None else pixels.alpha[None]
        colours, alpha = translate_pixels(generator, pixels.colours[None], alpha, tiling, tell)
        return to_pillow(joined(colours, alpha)[0])
    channels = picture.shape[-1] if picture.ndim > 2 else 1
    if picture.dtype != np.uint8 or not 2 <= picture.ndim <= 4 or not 1 <= channels <= 4 or not picture.size:
        shown = f"{picture.dtype} {list(picture.shape)}"
        raise ArgumentError(f"the picture is {shown}; valid: uint8 [H, W], [H, W, C] or [n, H, W, C] with C = 1 to 4")
    batch = picture.reshape(-1, *(picture.shape[-3:] if picture.ndim > 2 else (*picture.shape, 1)))
    colours, alpha = (batch[..., :-1], batch[..., -1]) if channels in (2, 4) else (batch, None)
    made = joined(*translate_pixels(generator, colours, alpha, tiling, tell))
    return made[0, ..., 0] if picture.ndim == 2 else made[0] if picture.ndim == 3 else made


def translate_pixels(
    generator: Network, colours: U8, alpha: U8 | None, tiling: Tiling, tell: Tell | None = None
) -> tuple[U8, U8 | None]:
    """Colours [n, H, W, 1 or 3] and alpha [n, H, W] -> what the model makes of them, as the table above says."""
    spec = generator.spec
    n, h, w, c = colours.shape
    kind = Kind(h, w, c, alpha is not None)
    layout, step = layout_of(generator, kind, n, tiling), sharing(generator, kind, n, tiling)
    runs = layout.count * -(-n // step)
    given = colours
    if spec.channels == 1 and c == 3:
        given = luminance(colours)
    elif spec.channels > 1 and c == 1:
        given = np.broadcast_to(colours, (n, h, w, 3))
    if spec.channels == 4:
        opaque = np.full((n, h, w), 255, np.uint8) if alpha is None else alpha
        given = np.concatenate([given, opaque[..., None]], axis=3)
    out = np.empty((n, h * spec.scale, w * spec.scale, spec.channels), np.uint8)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if tell is not None:
            tell(done, runs)

    for i in range(0, n, step):
        together = slice(i, i + step)
        stitch(lambda tile: generator.run({"source": tile}), given[together], layout, spec.scale, out[together], count)
    made = out[..., :3]
    if alpha is not None:
        alpha = out[..., 3] if spec.channels == 4 else np.stack([_enlarged(one, spec.scale) for one in alpha])
    return (luminance(made) if c == 1 and spec.channels > 1 else made), alpha


def layout_of(generator: Network, kind: Kind, n: int, tiling: Tiling) -> Layout:
    """How each of n pictures of one kind is cut: whole, or in the largest tiles that fit into the memory.

    Raises ArgumentError if none fit, or the result is too large for one picture, and ModelError for sizes that the
    network cannot take.
    """
    budget = _budget(generator, kind, n, tiling)
    refusal: ModelError | None = None
    least = 0.0
    for layout in _candidates(generator, kind, tiling):
        try:
            least = memory_of(generator, layout)
        except ModelError as error:  # beyond the gate's limits for one run of a network: smaller ones may not be
            refusal = error
            continue
        if least <= budget:
            return layout
    if least == 0 and refusal is not None:
        raise refusal
    if tiling.max_memory is None:
        what = f"for its smallest tile of a picture of {kind.width} x {kind.height}"
        raise ModelError(f"{generator.source}: it needs {_mb(least)} {what}; allow it with a tile size or max_memory")
    raise _too_little(kind, _mb(tiling.max_memory - budget + least), tiling)


def sharing(generator: Network, kind: Kind, n: int, tiling: Tiling) -> int:
    """How many of n pictures of one kind share a run: at most `tiling.batch`, and as many as are cut as one alone is.

    So no result depends on how many there are. Raises as `layout_of`.
    """
    alone = memory_of(generator, layout_of(generator, kind, n, tiling))
    return int(max(1, min(n, tiling.batch, _budget(generator, kind, n, tiling) / alone)))


def _budget(generator: Network, kind: Kind, n: int, tiling: Tiling) -> float:
    """Bytes for the network's work while n pictures and their results are held. Raises ArgumentError."""
    spec, pixels = generator.spec, kind.height * kind.width
    made = n * pixels * spec.scale**2 * (max(spec.channels, kind.channels) + kind.alpha)
    if made > MAX_ELEMENTS:
        size = f"{kind.width * spec.scale} x {kind.height * spec.scale}"
        raise ArgumentError(f"its result of {size} pixels would have {made} bytes; valid: at most {MAX_ELEMENTS}")
    if tiling.max_memory is None:
        return WORKING_MEMORY if tiling.tile is None else math.inf
    # The picture, and a network of RGBA is given a copy.
    read = n * pixels * (3 + kind.alpha + (4 if spec.channels == 4 else 0))
    # While the file is read, while the network works, and while the result is encoded.
    fixed_cost = BASE_MEMORY + WEIGHT_COPIES * generator.weight_bytes + read
    encoded = made + max(made, n * pixels * spec.scale**2 * tiling.encoding)
    without_work = fixed_cost + max(n * kind.reading * pixels, encoded)
    if without_work > tiling.max_memory:
        raise _too_little(kind, _mb(without_work), tiling)
    return tiling.max_memory - fixed_cost - made


def memory_of(generator: Network, layout: Layout) -> float:
    """About how many bytes the network's work on a tile takes. Raises ModelError."""
    spec, (h, w) = generator.spec, layout.tile
    activations = ARENA * generator.cost_of((h, w)).peak_bytes
    # The tile, what was made of it, and copies of both where a model of another origin wants another range.
    floats = 4 * spec.channels * h * w * (2 + 2 * spec.scale**2)
    ramps = 4 * spec.channels * layout.rows.ramp * layout.columns.length * spec.scale**2
    return activations + floats + ramps


def _candidates(generator: Network, kind: Kind, tiling: Tiling) -> list[Layout]:
    """The picture whole, unless tiles are asked for, then in smaller and smaller tiles."""
    m, fixed = generator.spec.size_multiple, generator.fixed_size
    sides = [-(-side // m) * m for side in (kind.height, kind.width)]
    lengths = [max(side, only or 0) for side, only in zip(sides, fixed, strict=True)]
    if tiling.tile is not None or None not in fixed:
        tiles = [tiling.tile or 0]
    else:
        smaller = {max(m, side // m * m) for side in SIDES}
        tiles = [max(lengths), *sorted((side for side in smaller if side < max(lengths)), reverse=True)]
    found = []
    for tile in tiles:
        axes = []
        for length, only in zip(lengths, fixed, strict=True):
            side = min(only or tile, length)
            overlap = -(-min(OVERLAP, side // 4) // m) * m if tiling.overlap is None else tiling.overlap
            if 2 * overlap > side and side < length:
                if tiling.overlap is not None:
                    break  # a tile too small for the overlap that is asked for
                overlap = side // 2 // m * m
            axes.append(Axis.cut(length, side, overlap, m))
        if len(axes) == 2:
            found.append(Layout(*axes))
    return found


def of_pillow(picture: "Image.Image") -> Pixels:
    """Its pixels, upright. Raises DataError."""
    try:
        return from_pillow(picture)
    except Exception as error:  # of a file that is read only now, anything
        raise DataError(f"the picture: {complaint(error)}") from None


def joined(colours: U8, alpha: U8 | None) -> U8:
    """Colours [..., C] and alpha [...] as one array."""
    return colours if alpha is None else np.concatenate([colours, alpha[..., None]], axis=-1)


def to_pillow(array: U8) -> "Image.Image":
    """[H, W, C] -> an image of the mode L, LA, RGB or RGBA."""
    from PIL import Image

    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else np.ascontiguousarray(array))


def _enlarged(alpha: U8, scale: int) -> U8:
    if scale == 1:
        return alpha
    from PIL import Image

    h, w = alpha.shape
    return np.asarray(Image.fromarray(alpha).resize((w * scale, h * scale), Image.Resampling.BICUBIC))


def _mb(size: float) -> str:
    return f"{math.ceil(size / 10**6)} MB"


def _too_little(kind: Kind, needed: str, tiling: Tiling) -> ArgumentError:
    assert tiling.max_memory is not None
    size = f"{kind.width} x {kind.height}"
    return ArgumentError(f"a picture of {size} needs {needed}; max_memory is {_mb(tiling.max_memory)}; raise it")
