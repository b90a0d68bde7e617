"""The metrics: similarity against scikit-image, distances that are known or published formulas."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import linalg
from skimage import metrics as skimage

from edgegan.errors import ArgumentError, EdgeGANWarning
from edgegan.trainer.data import sample_order
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance
from edgegan.trainer.metrics.kernel import kernel_distance
from edgegan.trainer.metrics.similarity import psnr, ssim


@pytest.fixture
def rng() -> np.random.Generator:
    """Each test draws the same numbers, whichever ran before."""
    return np.random.default_rng(0)


def noisy_pair(n: int = 3, h: int = 32, w: int = 28, c: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Smooth pictures and noisy ones of them, each noisier than the one before."""
    y, x = np.mgrid[:h, :w]
    waves = [np.sin(x / (3 + k + i) + y / (5 + i)) for i in range(n) for k in range(c)]
    smooth = np.array(waves).reshape(n, c, h, w).transpose(0, 2, 3, 1) * 100 + 128
    noise = np.random.default_rng(0).normal(size=smooth.shape) * np.arange(1, n + 1).reshape(n, 1, 1, 1) * 8
    return smooth.astype(np.uint8), (smooth + noise).clip(0, 255).astype(np.uint8)


# PSNR and SSIM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 32, 28, 3), (2, 11, 11, 1), (1, 300, 320, 3), (40, 28, 28, 1)])
def test_similarity_is_that_of_scikit_image(shape: tuple[int, int, int, int]) -> None:
    a, b = noisy_pair(*shape)
    ratios = [skimage.peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b, strict=True)]
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    similar = [skimage.structural_similarity(x, y, channel_axis=2, **how) for x, y in zip(a, b, strict=True)]
    assert psnr(a, b).dtype == ssim(a, b).dtype == np.float64
    np.testing.assert_allclose(psnr(a, b), ratios, rtol=1e-12)
    np.testing.assert_allclose(ssim(a, b), similar, rtol=1e-9)


def test_similarity_of_equal_and_of_shifted_pictures() -> None:
    a, _ = noisy_pair()
    assert psnr(a, a).tolist() == [math.inf] * 3
    np.testing.assert_allclose(ssim(a, a), 1, rtol=1e-12)
    grey = np.full((1, 16, 16, 1), 100, np.uint8)
    assert psnr(grey, grey + 16) == pytest.approx(20 * math.log10(255 / 16))
    flat = (2 * 100 * 116 + 6.5025) / (100**2 + 116**2 + 6.5025)  # of two constants only the luminance is left
    assert ssim(grey, grey + 16) == pytest.approx(flat)


def test_similarity_says_what_it_takes() -> None:
    a = np.zeros((2, 10, 40, 3), np.uint8)
    assert psnr(a, a).shape == (2,)
    with pytest.raises(ArgumentError, match="10 x 40; SSIM's window takes 11 x 11"):
        ssim(a, a)
    for other in (a[:1], a.astype(np.float32), a[0]):
        with pytest.raises(ArgumentError, match="two equal shapes"):
            psnr(a, other)
    with pytest.raises(ArgumentError, match="without a 0"):
        ssim(a[:0], a[:0])


# Fréchet distance ---------------------------------------------------------------------------------


def gaussian(mean: Any, covariance: Any) -> Statistics:
    return Statistics(np.array(mean, float), np.array(covariance, float), 10**6)


def test_frechet_distance_of_known_gaussians() -> None:
    a = gaussian([0, 0, 0], np.diag([1, 4, 9]))
    b = gaussian([3, 0, 4], np.diag([4, 4, 1]))
    # Covariances that commute: |m|^2 and the squared differences of the deviations.
    assert frechet_distance(a, b) == pytest.approx(25 + 1 + 0 + 4)
    assert frechet_distance(b, a) == pytest.approx(30)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    # 2 x 2, where tr (A B)^1/2 = (tr AB + 2 (det AB)^1/2)^1/2.
    c, d = np.array([[2, 1], [1, 2]]), np.array([[5, -2], [-2, 1]])
    cross = math.sqrt(np.trace(c @ d) + 2 * math.sqrt(np.linalg.det(c) * np.linalg.det(d)))
    assert frechet_distance(gaussian([0, 0], c), gaussian([0, 0], d)) == pytest.approx(4 + 6 - 2 * cross)


@pytest.mark.parametrize("rank", [24, 10])
def test_frechet_distance_is_that_of_the_published_code(rng: np.random.Generator, rank: int) -> None:
    """torch-fidelity's formula (eigenvalues of A B) and the original's (scipy's square root of A B), on features."""
    x = rng.normal(size=(400, rank)) @ rng.normal(size=(rank, 24)) * 5
    y = rng.normal(size=(300, rank)) @ rng.normal(size=(rank, 24)) * 5 + 1
    mean, a, b = x.mean(0) - y.mean(0), np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    fidelity = np.sqrt(np.linalg.eigvals(a.dot(b)).astype("complex128")).real.sum()
    distance = frechet_distance(Statistics.of(x), Statistics.of(y))
    assert distance == pytest.approx(mean @ mean + np.trace(a) + np.trace(b) - 2 * fidelity, rel=1e-5)
    if rank == 24:  # of a singular product scipy's root may be anything, so the original adds to the diagonal
        original = np.trace(linalg.sqrtm(a @ b).real)
        assert distance == pytest.approx(mean @ mean + np.trace(a) + np.trace(b) - 2 * original, rel=1e-9)


def test_equal_features_are_at_distance_0_whatever_their_rank(rng: np.random.Generator) -> None:
    x = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 64)) * 100
    stats = Statistics.of(x.astype(np.float32))
    assert frechet_distance(stats, stats) < 1e-9 * np.trace(stats.covariance)


def test_two_samples_of_one_gaussian_are_as_far_apart_as_the_module_says(rng: np.random.Generator) -> None:
    d, n = 40, 400
    samples = [Statistics.of(rng.normal(size=(n, d))) for _ in range(20)]
    mean = np.mean([frechet_distance(a, b) for a, b in zip(samples[::2], samples[1::2], strict=True)])
    assert mean / d == pytest.approx((d + 5) / (2 * n), rel=0.1)


def test_statistics_are_numpys_also_in_batches(rng: np.random.Generator) -> None:
    x = (rng.normal(size=(1000, 7)) @ rng.normal(size=(7, 7)) + 1000).astype(np.float32)
    whole = Statistics.of(x)
    batches = Statistics.of_batches(x[i : i + 64] for i in range(0, 1000, 64))
    one_by_one = Statistics.of_batches(x[i : i + 1] for i in range(1000))
    for stats in (whole, batches, one_by_one):
        assert stats.count == 1000
        np.testing.assert_allclose(stats.mean, x.mean(0, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(stats.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-8)


def test_few_samples_are_warned_of(rng: np.random.Generator) -> None:
    few, enough = Statistics.of(rng.normal(size=(19, 10))), Statistics.of(rng.normal(size=(20, 10)))
    with pytest.warns(EdgeGANWarning, match="19 samples of 10 features.*take 20 at least"):
        frechet_distance(enough, few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(enough, enough)


def test_frechet_says_what_it_takes() -> None:
    two = Statistics.of(np.eye(2))
    with pytest.raises(ArgumentError, match="a single sample"):
        frechet_distance(two, Statistics.of(np.ones((1, 2))))
    with pytest.raises(ArgumentError, match="2 and 3 dimensions"):
        frechet_distance(two, Statistics.of(np.eye(3)))
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        Statistics.of(np.array([[1, np.nan]]))
    with pytest.raises(ArgumentError, match="no batch"):
        Statistics.of_batches(iter(()))
    with pytest.raises(ArgumentError, match=r"\[d\], \[d, d\]"):
        Statistics(np.zeros(2), np.zeros((3, 3)), 5)


# Kernel distance ----------------------------------------------------------------------------------


def test_kernel_distance_is_the_published_estimate_of_each_block(rng: np.random.Generator) -> None:
    """The formula of the authors' code and torch-fidelity (`polynomial_mmd`, unbiased, m samples of each)."""
    x, y = rng.normal(size=(100, 6)), rng.normal(size=(100, 6)) + 0.5
    m, expected = 20, []
    for k in range(5):
        a, b = x[sample_order(0, 0, 100, 100)[k::5]], y[sample_order(1, 0, 100, 100)[k::5]]
        k_aa, k_bb, k_ab = ((p @ q.T / 6 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
        kt_aa, kt_bb = (k.sum(axis=1) - np.diagonal(k) for k in (k_aa, k_bb))
        expected.append((kt_aa.sum() + kt_bb.sum()) / (m * (m - 1)) - 2 * k_ab.sum() / (m * m))
    found = kernel_distance(x, y, block=20)
    assert found.value == pytest.approx(np.mean(expected), rel=1e-12)
    assert found.error == pytest.approx(np.std(expected, ddof=1) / 5**0.5, rel=1e-9)


def test_kernel_distance_is_not_biased_and_knows_its_error(rng: np.random.Generator) -> None:
    """Of features 1 and 2 standard normals apart by 1: E k(x, x') - 2 E k(x, y) + E k(y, y') by hand, for d = 1."""
    # With x.y = s: E (s + 1)^3 = 1 + 3 E s + 3 E s^2 + E s^3, and E s^k = E x^k E y^k; moments of N(1, 1): 1, 2, 4.
    expected = (1 + 0 + 3 + 0) - 2 * (1 + 0 + 3 * 2 + 0) + (1 + 3 + 3 * 4 + 16)
    found = [kernel_distance(rng.normal(size=(400, 1)), rng.normal(size=(200, 1)) + 1, block=40) for _ in range(300)]
    values, errors = np.array(found).T
    assert abs(values.mean() - expected) < 4 * values.std() / 300**0.5
    assert np.mean(errors**2) == pytest.approx(values.var(), rel=0.3)
    same = [kernel_distance(rng.normal(size=(60, 9)), rng.normal(size=(60, 9)), block=12) for _ in range(60)]
    assert abs(np.mean([value for value, _ in same])) < 4 * np.std([value for value, _ in same]) / 60**0.5


def test_kernel_distance_of_sets_sorted_by_class(rng: np.random.Generator) -> None:
    """Blocks of one class each would be far from those of another order."""
    classes = np.repeat(np.eye(10), 200, axis=0) * 5
    x, y = (classes + rng.normal(size=classes.shape) for _ in range(2))
    found = kernel_distance(x, y[::-1], block=200)
    assert abs(found.value) < 4 * found.error
    assert found.error < 0.1 * kernel_distance(x, y[:1000], block=200).value


def test_kernel_says_what_it_takes() -> None:
    ten = np.ones((10, 2))
    assert kernel_distance(ten, ten) == (0, 0)
    with pytest.raises(ArgumentError, match="n and m 10 or more"):
        kernel_distance(ten, ten[:9])
    with pytest.raises(ArgumentError, match=r"\[10, 2\] and \[10, 1\]"):
        kernel_distance(ten, ten[:, :1])
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        kernel_distance(ten, ten * np.nan)
