"""Proof that a model file draws what its network drew: onnxruntime against torch, and the file's own samples."""

import numpy as np
from torch import nn

from edgegan.errors import ExportError
from edgegan.export.onnx import draw
from edgegan.model import Generator, inputs_of, load

BATCHES = (1, 2, 3, 17)  # one, two, the three that was traced, and a larger one
SEED = 20  # other latents than those of the golden samples
TOLERANCE = 1e-4  # of pixels in [-1, 1]: an eightieth of one grey level


def check_parity(data: bytes, module: nn.Module) -> float:
    """Load `data` as a user would and compare; the largest difference of an output, in pixels of [-1, 1].

    Raises ExportError if it is over 1e-4 at any batch size, or if the golden samples are not met.
    """
    generator = load(data, provider="cpu")
    worst = max(_difference(generator, module, n) for n in BATCHES)
    golden = generator.check_golden()
    assert generator.spec.golden is not None
    if golden > generator.spec.golden.tolerance:
        raise ExportError(
            f"the exported model misses its golden samples by {golden} of 255, "
            f"allowed are {generator.spec.golden.tolerance}; nothing was written"
        )
    return worst


def _difference(generator: Generator, module: nn.Module, n: int) -> float:
    feed = inputs_of(generator.spec, SEED, n)
    expected, found = draw(module, generator.spec, feed), generator.run(feed)
    difference = float(np.abs(found - expected).max()) if np.isfinite(expected).all() else float("nan")
    if not difference <= TOLERANCE:  # the negation also catches NaN
        raise ExportError(
            f"onnxruntime and torch differ by {difference:.3g} at batch {n}, "
            f"allowed is {TOLERANCE:g} of pixels in [-1, 1]; nothing was written"
        )
    return difference
