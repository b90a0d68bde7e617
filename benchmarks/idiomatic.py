"""What a user would write instead of `edgegan sample -n N -o FOLDER`; benchmarks/runtime.py measures the two.

    python benchmarks/idiomatic.py MODEL N FOLDER BATCH

BATCH 1 is one picture after another, a seed each, as in the scripts that come with published GANs. More is a little
work on top: so many latents of a seed, and one run of the model for them.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model, n, folder, batch = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def one_by_one() -> None:
    for i in range(n):
        z = np.random.RandomState(i).randn(1, 64).astype(np.float32)
        (x,) = session.run(None, {"z": z, "label": np.array([i % 10])})
        pixels = ((x + 1) * 127.5).clip(0, 255).astype("uint8")
        Image.fromarray(pixels[0, 0]).save(f"{folder}/{i:05d}.png")


def in_batches() -> None:
    for first in range(0, n, batch):
        count = min(batch, n - first)
        z = np.random.RandomState(first).randn(count, 64).astype(np.float32)
        (x,) = session.run(None, {"z": z, "label": np.arange(first, first + count) % 10})
        pixels = ((x + 1) * 127.5).clip(0, 255).astype("uint8")
        for i in range(count):
            Image.fromarray(pixels[i, 0]).save(f"{folder}/{first + i:05d}.png")


if batch == 1:
    one_by_one()
else:
    in_batches()
