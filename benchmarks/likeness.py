"""For superres.py and restore.py: make pictures worse, say how near others come to them, and print a table."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgegan.image import to_float, to_uint8
from edgegan.noise import normal
from edgegan.trainer.metrics.features import FeatureNetwork

if TYPE_CHECKING:
    from edgegan.trainer.degrade import Degradation

U8 = NDArray[np.uint8]


def degraded(true: U8, how: "Degradation") -> U8:
    """[n, h, w, C] -> [n, h / scale, w / scale, C], as the training makes its sources; picture i always in one way."""
    import torch

    from edgegan.trainer.degrade import degrade, noise_dim

    made = []
    for i, image in enumerate(to_float(true)):
        z = normal(0, 1, noise_dim(how, *image.shape), start=i)
        made.append(degrade(torch.from_numpy(image[None]), torch.from_numpy(z), how).numpy())
    return to_uint8(np.concatenate(made))


def feature_distance(made: U8, true: U8, network: FeatureNetwork) -> float:
    """1000 (1 - cosine) of the features of what was made and of the truth, the mean over the pictures."""
    cosines = (directions(network, made) * directions(network, true)).sum(axis=1)
    return 1000 * float((1 - cosines).mean())


def directions(network: FeatureNetwork, images: U8) -> NDArray[np.float64]:
    """The features of pictures, each of length 1: [n, dim]."""
    features = network(images).astype(np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def show_table(rows: dict[str, dict[str, str]]) -> None:
    """In Markdown: of each method, by its name, the columns."""
    heads = list(next(iter(rows.values())))
    print("\n| method | " + " | ".join(heads) + " |\n|---|" + "---:|" * len(heads))
    for name, columns in rows.items():
        print(f"| {name} | " + " | ".join(columns.values()) + " |", flush=True)
