"""Handwritten digits and the same drawn in another style: a translation whose truth is known for every picture.

    python benchmarks/styled_digits.py digits
    edgegan-train cyclegan --source digits/plain --data digits/styled --out digits-run
    edgegan-export digits-run -o digits-styled.onnx
    edgegan-score digits-styled.onnx digits/test/styled --source digits/test/plain --paired

The style: only the outline of the stroke is left, blue on yellow paper. The digits are the 10,000 that come with
edgegan (`--data digits`): in plain/ 4,500 of them, in styled/ 4,500 others, and 1,000 more in both folders of
test/. So nothing in the training says which styled digit belongs to a plain one.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from edgegan.trainer.data import open_dataset

TEST = 1_000
PAPER, INK = np.array([250.0, 225.0, 130.0]), np.array([40.0, 60.0, 170.0])


def styled(digit: Image.Image) -> Image.Image:
    """A grey digit, white on black -> its outline, blue on yellow: the morphological gradient of 3 x 3 pixels."""
    thick, thin = (np.asarray(digit.filter(f(3)), np.float64) for f in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    share = ((thick - thin) / 255)[..., None]
    return Image.fromarray(np.rint(PAPER + share * (INK - PAPER)).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder for the pictures")
    parser.add_argument("-n", type=int, default=10_000, help="digits, of which 1,000 are for the test (default: all)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    digits = open_dataset("digits").images[: options.n, ..., 0]
    half = (len(digits) - TEST) // 2
    parts = {
        "test/plain": slice(0, TEST),
        "test/styled": slice(0, TEST),
        "plain": slice(TEST, TEST + half),
        "styled": slice(TEST + half, None),
    }
    for name, part in parts.items():
        place = options.folder / name
        place.mkdir(parents=True)
        for i, digit in enumerate(map(Image.fromarray, digits[part])):
            picture = styled(digit) if name.endswith("styled") else digit.convert("RGB")
            picture.save(place / f"{i:04d}.png")


if __name__ == "__main__":
    main()
