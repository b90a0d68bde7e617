"""What recipes share that work at several resolutions, each half of the one before."""

from edgegan.errors import ArgumentError
from edgegan.trainer.recipe import DataShape

COARSEST = 4  # pixels: the smaller side is halved while it stays at least this


def halvings_of(shape: DataShape, recipe: str, least: int, greatest: int) -> int:
    """How often a picture is halved down to the coarsest level, of 4 to 7 pixels on the smaller side.

    least, greatest: of the smaller side, in pixels, what the recipe draws. Raises ArgumentError, which names the
    recipe, for other sizes, and for sides that do not halve evenly so often.
    """
    smaller, size = min(shape.height, shape.width), f"{shape.width}x{shape.height}"
    if not least <= smaller <= greatest:
        raise ArgumentError(
            f"recipe {recipe} cannot draw {size}: the smaller side must be {least} to {greatest}; pass --resolution "
            "64, say"
        )
    halvings = (smaller // COARSEST).bit_length() - 1
    if shape.height % 2**halvings or shape.width % 2**halvings:
        raise ArgumentError(
            f"recipe {recipe} cannot draw {size}: it is halved {halvings} times, so both sides must be multiples of "
            f"{2**halvings}; pass --resolution {smaller >> halvings << halvings}, say"
        )
    return halvings


def scaled(channels: float, width: float) -> int:
    """That many channels times `width`, as the nearest multiple of 8 and at least that: what processors like."""
    return max(8, round(channels * width / 8) * 8)
