"""Modes of known distributions: the published protocol, counted by hand, and the data it draws."""

import math

import numpy as np
import pytest
from PIL import Image

from edgegan import noise
from edgegan.errors import ArgumentError
from edgegan.trainer.data.sources import DIGITS
from edgegan.trainer.metrics.features import FeatureNetwork, open_features
from edgegan.trainer.metrics.modes import (
    GRID,
    RING,
    Mixture,
    class_modes,
    point_modes,
    stacked_classes,
    stacked_digits,
)


@pytest.fixture(scope="module")
def lenet() -> FeatureNetwork:
    return open_features("lenet", threads=1)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """300 of the embedded digits: uint8 [300, 28, 28, 1], labels."""
    with np.load(DIGITS) as archive:
        names = list(archive)
        images, labels = (archive[name] for name in sorted(names, key=lambda name: -archive[name].ndim)[:2])
    return images[:300].reshape(300, 28, 28, 1), labels[:300]


# Ring and grid -----------------------------------------------------------------------------------


def test_ring_and_grid_are_those_of_the_paper() -> None:
    ring, grid = np.array(RING.means), np.array(GRID.means)
    np.testing.assert_allclose(np.hypot(*ring.T), 1)
    angles = np.sort(np.arctan2(*ring.T[::-1]) % math.tau)
    np.testing.assert_allclose(angles, np.arange(8) * math.tau / 8, atol=1e-12)
    assert {tuple(mean) for mean in grid.tolist()} == {(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)}
    assert (RING.deviation, GRID.deviation) == (0.01, 0.05)  # variances 0.0001 and 0.0025


@pytest.mark.parametrize("mixture", [RING, GRID])
def test_the_distribution_itself_has_all_modes_and_the_known_quality(mixture: Mixture) -> None:
    n = 50_000
    points = mixture.draw(1, n)
    assert points.dtype == np.float32
    found = point_modes(points, mixture)
    total = len(mixture.means)
    assert (found.found, found.total) == (total, total)
    # Of a Gaussian in the plane, 1 - exp(-3^2 / 2) lies within three standard deviations.
    share = 1 - math.exp(-4.5)
    assert found.high_quality == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)
    assert found.divergence == pytest.approx((total - 1) / (2 * n), abs=4 * (total / 2) ** 0.5 / n)
    modes = np.hypot(*(points[:, None] - np.array(mixture.means)).transpose(2, 0, 1)).argmin(axis=1)
    rest = (points - np.array(mixture.means)[modes]) / mixture.deviation
    np.testing.assert_allclose(rest.mean(axis=0), 0, atol=4 / n**0.5)
    np.testing.assert_allclose(np.cov(rest.T), np.eye(2), atol=0.04)


def test_drawn_points_are_a_function_of_seed_and_index() -> None:
    points = GRID.draw(7, 100)
    np.testing.assert_array_equal(GRID.draw(7, 30, start=50), points[50:80])
    assert not np.array_equal(GRID.draw(8, 100), points)
    # A generator is fed the latents of a seed: data of the same seed must not follow from them.
    latents = noise.normal(7, 2000, 2)
    offsets = GRID.draw(7, 2000) - np.round(GRID.draw(7, 2000) / 2) * 2
    assert np.abs(np.corrcoef(latents.T, offsets.T)[:2, 2:]).max() < 0.1


def test_point_modes_counted_by_hand() -> None:
    mixture = Mixture(((0.0, 0.0), (10.0, 0.0), (0.0, 10.0), (10.0, 10.0)), 1.0)
    points = np.array([[0, 3], [0, 3.01], [7, 0], [6.9, 0], [9, 12], [1, 7]])
    found = point_modes(points, mixture)
    # Nearest means: 0, 0, 1, 1, 3, 2. Of high quality: the first, the third, the fifth; the last, of mode 2, is poor.
    assert (found.found, found.total, found.high_quality) == (3, 4, 0.5)
    shares = np.array([2, 2, 1, 1]) / 6
    assert found.divergence == pytest.approx((shares * np.log(4 * shares)).sum())


def test_point_modes_of_a_collapse() -> None:
    assert point_modes(np.zeros((10, 2)), GRID) == pytest.approx((1, 25, math.log(25), 1))
    lost = point_modes(np.ones((10, 2)), GRID)
    assert (lost.found, lost.high_quality) == (0, 0)


# Stacked-MNIST -----------------------------------------------------------------------------------


def test_class_modes_counted_by_hand() -> None:
    assert class_modes(np.arange(1000).repeat(3)) == (1000, 1000, 0)
    assert class_modes(np.full(50, 999)) == pytest.approx((1, 1000, math.log(1000)))
    shares = np.array([0.5, 0.25, 0.25])
    expected = (shares * np.log(shares / 0.1)).sum()
    assert class_modes(np.array([3, 3, 5, 8]), 10) == pytest.approx((3, 10, expected))


def test_divergence_of_evenly_drawn_classes_is_as_far_off_as_told() -> None:
    found = [class_modes(noise.labels(seed, 26_000, 1000)) for seed in range(5)]
    assert {modes.found for modes in found} == {1000}
    assert np.mean([modes.divergence for modes in found]) == pytest.approx(999 / 52_000, rel=0.05)


def test_stacked_digits_are_of_their_classes(digits: tuple[np.ndarray, np.ndarray], lenet: FeatureNetwork) -> None:
    pictures, classes = stacked_digits(*digits, seed=3, n=400)
    assert pictures.shape == (400, 28, 28, 3)
    assert pictures.dtype == np.uint8
    names = {image.tobytes(): int(label) for image, label in zip(*digits, strict=True)}
    for picture, number in zip(pictures, classes, strict=True):
        hundreds, tens, ones = (names[picture[..., channel].tobytes()] for channel in range(3))
        assert number == 100 * hundreds + 10 * tens + ones
    assert (stacked_classes(pictures, lenet) == classes).mean() > 0.96  # three digits, each right at 99.4 %
    again, _ = stacked_digits(*digits, seed=3, n=100, start=250)
    np.testing.assert_array_equal(again, pictures[250:350])
    assert not np.array_equal(stacked_digits(*digits, seed=4, n=400)[1], classes)


def test_stacked_digits_are_drawn_evenly() -> None:
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    pictures, classes = stacked_digits(images, np.arange(10), seed=0, n=26_000)
    modes = class_modes(classes)
    assert modes.found == 1000
    assert modes.divergence == pytest.approx(999 / 52_000, rel=0.1)
    np.testing.assert_array_equal(pictures[:, 0, 0] @ np.array([100, 10, 1]), classes)


def test_stacked_pictures_of_another_size_are_resized(
    digits: tuple[np.ndarray, np.ndarray], lenet: FeatureNetwork
) -> None:
    """GANs for them draw 32 x 32."""
    pictures, classes = stacked_digits(*digits, seed=3, n=64)
    larger = np.stack([np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BICUBIC)) for p in pictures])
    assert (stacked_classes(larger, lenet) == classes).mean() > 0.9


def test_modes_say_what_they_take(digits: tuple[np.ndarray, np.ndarray], lenet: FeatureNetwork) -> None:
    images, labels = digits
    for points in (np.zeros((3, 3)), np.zeros((0, 2)), np.zeros(2)):
        with pytest.raises(ArgumentError, match=r"points are .*; valid: \[n, 2\]"):
            point_modes(points, RING)
    with pytest.raises(ArgumentError, match="points hold NaN"):
        point_modes(np.full((1, 2), np.nan), RING)
    for classes in (np.zeros(0, int), np.zeros(3), np.zeros((2, 2), int)):
        with pytest.raises(ArgumentError, match=r"classes are .*; valid: integers \[n\]"):
            class_modes(classes)
    with pytest.raises(ArgumentError, match="classes go from -1 to 1000; valid: 0 to 999"):
        class_modes(np.array([-1, 1000]))
    with pytest.raises(ArgumentError, match=r"digits are uint8 \[300, 28, 28\]"):
        stacked_digits(images[..., 0], labels, 0, 1)
    for wrong in (labels[:5], labels + 1, labels / 1.0):
        with pytest.raises(ArgumentError, match=r"labels are .*; valid: \[300\], 0 to 9"):
            stacked_digits(images, wrong, 0, 1)
    with pytest.raises(ArgumentError, match=r"pictures are uint8 \[300, 28, 28, 1\]; valid: uint8 \[n, H, W, 3\]"):
        stacked_classes(images, lenet)
    with pytest.raises(ArgumentError, match="seed is -1"):
        RING.draw(-1, 5)
