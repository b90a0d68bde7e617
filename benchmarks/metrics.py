"""Do the metrics say what they should? Known answers, what they do as pictures get worse, and real against real.

    python benchmarks/metrics.py FOLDER-OF-MNIST              # prints Markdown; some minutes on one thread
    python benchmarks/metrics.py FOLDER-OF-MNIST --libraries  # only the comparison with other libraries: libraries.py

The folder holds the IDX files of MNIST. Exit status 1 if a number is not what it should be. Set OMP_NUM_THREADS=1 and
OPENBLAS_NUM_THREADS=1 to compute on one thread.
"""

import argparse
import io
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import say
from libraries import compared, print_table
from PIL import Image, ImageFilter

from edgegan.devices import processor
from edgegan.trainer.data import sample_order
from edgegan.trainer.data.arrays import idx_labels_of, read_idx
from edgegan.trainer.metrics.classes import class_distances, class_score
from edgegan.trainer.metrics.diversity import feature_diversity, picture_diversity
from edgegan.trainer.metrics.features import FeatureNetwork, open_features
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance
from edgegan.trainer.metrics.kernel import kernel_distance
from edgegan.trainer.metrics.manifold import authenticity, manifold
from edgegan.trainer.metrics.modes import GRID, RING, class_modes, point_modes, stacked_classes, stacked_digits

PUBLISHED = (0.4772, 0.4705, 1.0555, 0.9735)  # prdc's README, of one draw
TRIALS = 5
HALVINGS = 200
COUNT = 5000  # pictures on each side of the comparisons of worse and worse ones
SIZES = (500, 1000, 2000, 5000, 10_000)  # real against real


class Pictures(NamedTuple):
    images: np.ndarray  # uint8 [n, 28, 28, 1]
    labels: np.ndarray  # int64 [n]

    def first(self, n: int) -> "Pictures":
        return Pictures(self.images[:n], self.labels[:n])


class Answer(NamedTuple):
    what: str
    found: str
    expected: str
    met: bool


# Known answers -----------------------------------------------------------------------------------


def gaussians() -> Iterator[Answer]:
    """10,000 against 10,000 draws of N(0, I) in 1,000 dimensions: several times, as the published ones are of one."""
    rng = np.random.default_rng(0)
    found = []
    for trial in range(TRIALS):
        say(f"N(0, I), trial {trial + 1} of {TRIALS}")
        found.append(manifold(*rng.standard_normal((2, 10_000, 1000), np.float32), k=5))
    means, deviations = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
    for name, mean, deviation, published in zip(found[0]._fields, means, deviations, PUBLISHED, strict=True):
        near = abs(mean - published) < 3 * deviation * (1 + 1 / TRIALS) ** 0.5
        yield Answer(f"{name}, N(0, I) in 1,000-d, k = 5", f"{mean:.4f} ± {deviation:.4f}", f"{published}", near)
    # A drawn sample, the real one and the other real ones are exchangeable: it is in the ball with probability k / n.
    near = abs(means[2] - 1) < 3 * deviations[2] / TRIALS**0.5
    yield Answer("density, its expectation", f"{means[2]:.4f} ± {deviations[2]:.4f}", "1", near)
    lemma = 1 - math.prod((10_000 - i) / (20_000 - i) for i in range(1, 6))
    near = abs(means[3] - lemma) < 3 * deviations[3] / TRIALS**0.5
    yield Answer("coverage, its expectation by Lemma 2", f"{means[3]:.4f} ± {deviations[3]:.4f}", f"{lemma:.4f}", near)


def closed_form() -> Iterator[Answer]:
    """The Fréchet distance of two Gaussians whose covariances commute, from 200,000 draws of each."""
    rng = np.random.default_rng(1)
    dim = 16
    axes = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    a, b = rng.uniform(0.2, 3, (2, dim))  # deviations along the axes
    shift = rng.normal(size=dim)
    exact = float(shift @ shift + np.square(a - b).sum())
    given = (Statistics(m, (axes * s**2) @ axes.T, 10**6) for m, s in ((np.zeros(dim), a), (shift, b)))
    found = frechet_distance(*given)
    yield Answer("Fréchet distance of two Gaussians", f"{found:.10f}", f"{exact:.10f}", abs(found - exact) < 1e-9)
    x, y = (rng.normal(size=(200_000, dim)) * s @ axes.T for s in (a, b))
    found = frechet_distance(Statistics.of(x), Statistics.of(y + shift))
    met = abs(found / exact - 1) < 0.01
    yield Answer("the same of 200,000 draws of each", f"{found:.3f}", f"{exact:.3f}, to 1 %", met)


def halves(features: np.ndarray) -> Iterator[Answer]:
    """The kernel distance between random halves of one set, which is 0 on average if it is not biased."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(HALVINGS):
        order = rng.permutation(1000)
        found.append(kernel_distance(features[order[:500]], features[order[500:]], block=100))
    values, errors = np.array(found).T
    mean, error = values.mean(), values.std(ddof=1) / HALVINGS**0.5
    yield Answer(
        f"kernel distance of {HALVINGS} random halves, mean",
        f"{mean:.5f} ± {error:.5f}",
        "0 ± 3 errors",
        abs(mean) < 3 * error,
    )
    ratio = float(np.mean(errors**2) ** 0.5 / values.std(ddof=1))
    yield Answer("the error it tells, over their scatter", f"{ratio:.2f}", "1 to 15 %", abs(ratio - 1) < 0.15)


def modes(test: Pictures, network: FeatureNetwork) -> Iterator[Answer]:
    share = 1 - math.exp(-4.5)
    for name, mixture in (("ring", RING), ("grid", GRID)):
        found = point_modes(mixture.draw(0, 100_000), mixture)
        near = found.found == found.total and abs(found.high_quality - share) < 3 * (share * (1 - share) / 1e5) ** 0.5
        told = f"{found.found} of {found.total}, {found.high_quality:.4f}"
        yield Answer(f"modes and high quality of 100,000 points of the {name}", told, f"all, {share:.4f}", near)
    say("Stacked-MNIST")
    pictures, classes = stacked_digits(*test, seed=0, n=26_000)
    seen = stacked_classes(pictures, network)
    counted = class_modes(seen)
    # By chance, and since MNIST's digits are not equally many.
    expected = 999 / 52_000 + 3 * class_modes(test.labels, 10).divergence
    met = counted.found == 1000 and abs(counted.divergence - expected) < 0.003
    told = f"{counted.found}, {counted.divergence:.4f}"
    yield Answer("modes and KL of 26,000 real Stacked-MNIST pictures", told, f"1000, {expected:.4f}", met)
    right = (seen == classes).mean()
    yield Answer("share of these that lenet gives their class", f"{right:.4f}", f"{0.994**3:.4f}", right > 0.97)


# Worse and worse ---------------------------------------------------------------------------------


def blurred(images: np.ndarray, radius: float) -> np.ndarray:
    return each(images, lambda picture: picture.filter(ImageFilter.GaussianBlur(radius)))


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, deviation, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def compressed(images: np.ndarray, quality: int) -> np.ndarray:
    def through(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return each(images, through)


def each(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image[..., 0]))) for image in images])[..., None]


def without(pictures: Pictures, kept: int) -> np.ndarray:
    """As many pictures, of fewer classes."""
    return pictures.images[pictures.labels < kept][:COUNT]


def worsened(test: Pictures) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
    images = test.images[:COUNT]
    yield "blur, radius in pixels", [(f"{r}", blurred(images, r)) for r in (0.5, 0.75, 1, 1.5)]
    yield "noise, deviation in grey levels", [(f"{s}", noisy(images, s)) for s in (16, 32, 64, 96)]
    yield "JPEG, quality", [(f"{q}", compressed(images, q)) for q in (50, 20, 10, 5)]
    yield "classes dropped", [(f"{10 - kept}", without(test, kept)) for kept in (9, 8, 7, 5)]


def measured(network: FeatureNetwork, images: np.ndarray, real: np.ndarray) -> list[float]:
    features, logits = network.run(images)
    assert logits is not None
    near = manifold(features, real)
    return [
        frechet_distance(Statistics.of(features), Statistics.of(real)),
        kernel_distance(features, real).value,
        *near,
        class_score(logits).mean,
        feature_diversity(features).value,
    ]


COLUMNS = ("Fréchet", "kernel", "precision", "recall", "density", "coverage", "class score", "feature distance")


def behaviour(test: Pictures, real: np.ndarray, network: FeatureNetwork) -> bool:
    """Prints the table; whether both distances rise with every step."""
    print(f"\n| {COUNT:,} test pictures | | " + " | ".join(COLUMNS) + " |\n|---|---:|" + "---:|" * len(COLUMNS))
    good = True
    untouched = measured(network, test.images[:COUNT], real)
    print_row("as they are", "", untouched)
    for what, steps in worsened(test):
        say(what)
        before = untouched
        for how, images in steps:
            now = measured(network, images, real)
            rises = now[0] > before[0] and now[1] > before[1]
            good &= rises
            print_row(what, how if rises else f"{how} **not worse**", now)
            before = now
    return good


def print_row(what: str, how: str, values: list[float]) -> None:
    frechet, kernel, *shares, score, distance = values
    cells = [f"{frechet:.3f}", f"{kernel:.4f}", *(f"{share:.3f}" for share in shares)]
    cells += [f"{score:.2f}", f"{distance:.2f}"]
    print(f"| {what} | {how} | " + " | ".join(cells) + " |", flush=True)


# Real against real -------------------------------------------------------------------------------


def floors(train: Pictures, test: Pictures, real: np.ndarray, network: FeatureNetwork) -> None:
    """Of n test pictures against n training pictures, what a perfect generator would be at."""
    columns = (*COLUMNS[:2], "its error", *COLUMNS[2:], "authenticity", "MS-SSIM in a class", "Fréchet in a class")
    print("\n| test pictures | " + " | ".join(columns) + " |\n|---:|" + "---:|" * len(columns))
    features, logits = network.run(test.images)
    assert logits is not None
    for n in SIZES:
        say(f"real against real, {n:,}")
        x, y = features[:n], real[:n]
        kernel = kernel_distance(x, y)
        cells = [f"{frechet_distance(Statistics.of(x), Statistics.of(y)):.3f}", f"{kernel.value:.4f}"]
        cells += [f"{kernel.error:.4f}", *(f"{share:.3f}" for share in manifold(x, y))]
        cells += [f"{class_score(logits[:n]).mean:.2f}", f"{feature_diversity(x).value:.2f}"]
        cells += [f"{authenticity(x, y):.3f}", f"{picture_diversity(*test.first(n)).value:.3f}"]
        least = min(np.bincount(labels[:n]).min() for labels in (train.labels, test.labels))
        if least >= 2 * network.dim:
            cells.append(f"{np.mean(list(class_distances(x, test.labels[:n], y, train.labels[:n]).values())):.3f}")
        print(f"| {n:,} | " + " | ".join([*cells, *["too few"] * (len(columns) - len(cells))]) + " |", flush=True)
    everything = network(train.images)
    for n in (2000, 10_000):
        share = authenticity(features[:n], everything)
        print(f"\nAuthenticity of {n:,} test pictures among all {len(everything):,} training pictures: {share:.3f}")


# All of it ---------------------------------------------------------------------------------------


def read(folder: Path, name: str) -> Pictures:
    """In an order drawn: the first 5,000 test pictures come of other writers than the rest, and are easier."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    labels: Any = None if path is None else idx_labels_of(path)
    if path is None or labels is None:
        raise FileNotFoundError(f"{folder} lacks {name}, or the labels beside it")
    images, labels = read_idx(path, None), read_idx(labels, None)
    order = sample_order(0, 0, len(images), len(images))
    return Pictures(images[order][..., None], labels[order].astype(np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the metrics with what they should say.")
    parser.add_argument("data", type=Path, help="folder of MNIST's IDX files, .gz or not")
    parser.add_argument("--libraries", action="store_true", help="only compare with the libraries that are installed")
    asked = parser.parse_args()
    folder = asked.data
    try:
        train, test = read(folder, "train-images-idx3-ubyte"), read(folder, "t10k-images-idx3-ubyte")
    except FileNotFoundError as error:
        parser.error(str(error))
    began = time.perf_counter()
    network = open_features("lenet", threads=1)
    real, features = network(train.images[: max(SIZES)]), network(test.images)
    some = noisy(test.images[:COUNT], 32)
    seen = network.run(some)
    assert seen.logits is not None
    libraries = compared((seen.features, real[:COUNT], seen.logits), (test.images[:100], some[:100]))
    if asked.libraries:
        sys.exit(0 if print_table(libraries) else 1)

    print("| what | here | should be |\n|---|---:|---:|")
    good = True
    parts = (
        closed_form(),
        halves(features),
        modes(test, network),
        gaussians(),
    )
    for part in parts:
        for answer in part:
            good &= answer.met
            missed = "" if answer.met else " **missed**"
            print(f"| {answer.what} | {answer.found} | {answer.expected}{missed} |", flush=True)
    good &= behaviour(test, real[:COUNT], network)
    floors(train, test, real, network)
    good &= print_table(libraries)
    say(f"{time.perf_counter() - began:.0f} s on {processor()}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
