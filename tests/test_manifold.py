"""Nearest neighbours of features: the published code's formulas and known answers, ties, copies; and diversity."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from edgegan.errors import ArgumentError
from edgegan.trainer.metrics import manifold as module
from edgegan.trainer.metrics.diversity import feature_diversity, ms_ssim, picture_diversity
from edgegan.trainer.metrics.manifold import Manifold, authenticity, manifold, nearest
from edgegan.trainer.metrics.similarity import ssim


@pytest.fixture
def rng() -> np.random.Generator:
    """Each test draws the same numbers, whichever ran before."""
    return np.random.default_rng(0)


def published(drawn: np.ndarray, real: np.ndarray, k: int) -> Manifold:
    """compute_prdc of PyPI's prdc 0.2, from a table of all distances."""

    def radii(x: np.ndarray) -> np.ndarray:
        return np.sort(cdist(x, x), axis=1)[:, k]  # itself is at place 0

    table, real_radii, drawn_radii = cdist(real, drawn), radii(real), radii(drawn)
    return Manifold(
        (table < real_radii[:, None]).any(axis=0).mean(),
        (table < drawn_radii[None]).any(axis=1).mean(),
        (table < real_radii[:, None]).sum(axis=0).mean() / k,
        (table.min(axis=1) < real_radii).mean(),
    )


# Precision, recall, density, coverage ------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m", "dim", "k", "offset"),
    [(500, 700, 84, 5, 0.0), (900, 300, 5, 3, 1e4), (400, 400, 1, 1, -1.0), (60, 80, 2048, 5, 3.0)],
)
def test_manifold_is_that_of_the_published_code(
    rng: np.random.Generator, n: int, m: int, dim: int, k: int, offset: float
) -> None:
    real = (rng.normal(size=(m, dim)) + offset).astype(np.float32)
    drawn = (rng.normal(size=(n, dim)) * 0.97 + 0.05 + offset).astype(np.float32)
    expected = published(drawn.astype(np.float64), real.astype(np.float64), k)
    assert expected.precision > 0
    assert manifold(drawn, real, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("offset", [0, 5000])
def test_ties_are_outside_whatever_the_rounding(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """Whole numbers: squared distances are whole and many are equal, which float32 products cannot tell."""
    real, drawn = rng.integers(0, 5, (300, 6)), rng.integers(0, 5, (400, 6))
    real[:20] = 1000
    drawn[:20] = [1000, 1000, 1000, 1000, 1000, 1001]

    def table(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.square(x[:, None] - y).sum(axis=2)

    real_radii, drawn_radii = (np.sort(table(x, x), axis=1)[:, 4] for x in (real, drawn))
    between = table(real, drawn)
    assert np.count_nonzero(between == real_radii[:, None]) > 100
    expected = Manifold(
        (between < real_radii[:, None]).any(axis=0).mean(),
        (between < drawn_radii).any(axis=1).mean(),
        (between < real_radii[:, None]).sum() / (4 * 400),
        (between < real_radii[:, None]).any(axis=1).mean(),
    )
    for block in (2**21, 1000, 1):  # as well in blocks of some rows, and of one
        monkeypatch.setattr(module, "_BLOCK", block)
        assert manifold(drawn + offset, real + offset, 4) == pytest.approx(expected, abs=1e-12)


def test_manifold_does_not_depend_on_blocks_or_scale(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    real, drawn = rng.normal(size=(2, 300, 20))
    expected = manifold(drawn, real)
    for scale in (2.0**-600, 2.0**500):  # whose squares are 0 and infinite
        assert manifold(drawn * scale, real * scale) == expected
    monkeypatch.setattr(module, "_BLOCK", 4000)
    assert manifold(drawn, real) == expected


def test_manifold_of_copies_of_a_collapse_and_of_something_else(rng: np.random.Generator) -> None:
    real = rng.normal(size=(200, 10)).astype(np.float32)
    assert manifold(real, real)[:2] == (1, 1)
    assert manifold(real, real).coverage == 1
    one = np.repeat(real[:1], 200, axis=0)
    collapsed = manifold(one, real)
    assert (collapsed.precision, collapsed.recall) == (1, 0)
    assert 1 / 200 <= collapsed.coverage < 0.2
    assert manifold(real + 100, real) == (0, 0, 0, 0)
    real[:60] += 100
    half = manifold(real[60:], real)  # good pictures, but a kind is missing
    assert half == pytest.approx((1, 0.7, half.density, 0.7))
    mixed = manifold(np.concatenate([real[60:], real[:60] + 300]), real)  # and bad ones in its place
    assert mixed == pytest.approx((0.7, 0.7, 0.7 * half.density, 0.7))


@pytest.mark.slow
def test_manifold_of_two_sets_of_one_gaussian_is_as_published() -> None:
    """prdc's README: of 10,000 against 10,000 draws of N(0, I) in 1,000 dimensions, k = 5."""
    drawn, real = np.random.default_rng(0).normal(size=(2, 10_000, 1000)).astype(np.float32)
    found = manifold(drawn, real, k=5)
    assert found[:2] == pytest.approx((0.4772, 0.4705), abs=0.04)
    assert found.density == pytest.approx(1.0555, abs=0.25)  # of sets of one Gaussian it scatters by 0.1
    assert found.coverage == pytest.approx(0.9735, abs=0.02)


def test_coverage_of_sets_of_one_origin_is_that_of_the_papers_lemma(rng: np.random.Generator) -> None:
    """Naeem et al., Lemma 2: 1 - (m-1)...(m-k) / (n+m-1)...(n+m-k), whatever the distribution; density is 1."""
    n, m, k = 300, 400, 3
    found = np.array([manifold(rng.normal(size=(n, 4)), rng.normal(size=(m, 4)), k) for _ in range(20)])
    expected = 1 - np.prod([(m - i) / (n + m - i) for i in range(1, k + 1)])
    assert found[:, 3].mean() == pytest.approx(expected, abs=0.01)
    assert found[:, 2].mean() == pytest.approx(1, abs=0.04)


def test_no_table_of_all_distances_is_kept(rng: np.random.Generator) -> None:
    drawn, real = rng.normal(size=(2, 8000, 4)).astype(np.float32)
    tracemalloc.start()
    manifold(drawn, real)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6  # a table of float32 would be 256 MB


# Nearest neighbours, copies ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 50])
def test_nearest_is_the_sorted_table(rng: np.random.Generator, count: int) -> None:
    drawn, real = rng.normal(size=(120, 30)) + 20, rng.normal(size=(50, 30)) + 20
    table = cdist(drawn, real)
    found = nearest(drawn, real, count)
    np.testing.assert_array_equal(found.indices, np.argsort(table, axis=1)[:, :count])
    np.testing.assert_allclose(found.distances, np.sort(table, axis=1)[:, :count], rtol=1e-12)


def test_nearest_finds_the_very_picture_among_near_ones(rng: np.random.Generator) -> None:
    """Features that float32 products cannot tell apart: a step of 1e-6 beside numbers of 1."""
    base = rng.normal(size=(1, 84)).astype(np.float32)
    real = np.concatenate([base + np.float32(1e-6) * rng.integers(-2, 3, (300, 84)), -base, base, base])
    real = real.astype(np.float32)
    found = nearest(real[[7, 301]], real, 2)
    assert found.indices[0, 0] == 7
    assert found.indices[1].tolist() == [301, 302]  # equal ones, the first first
    assert found.distances[:, 0].tolist() == [0, 0]


def test_authenticity_is_that_of_the_published_formula(rng: np.random.Generator) -> None:
    """AuthPct of Jiralerspong et al. 2023, with its tables."""
    drawn, training = rng.normal(size=(200, 6)), rng.normal(size=(300, 6))
    own = cdist(training, training)
    np.fill_diagonal(own, np.inf)
    between = cdist(training, drawn)
    expected = (own.min(axis=0)[between.argmin(axis=0)] < between.min(axis=0)).mean()
    assert 0.3 < expected < 0.9
    assert authenticity(drawn, training) == expected


def test_authenticity_tells_copies(rng: np.random.Generator) -> None:
    training = rng.normal(size=(500, 20))
    fresh = rng.normal(size=(400, 20))
    assert authenticity(training, training) == 0
    assert authenticity(training[:300] + rng.normal(size=(300, 20)) * 0.01, training) == 0
    mixed = np.concatenate([training[:100], fresh])
    assert authenticity(mixed, training) == pytest.approx(0.8 * authenticity(fresh, training))
    assert authenticity(fresh + 100, training) == 1


def test_manifold_says_what_it_takes() -> None:
    x = np.eye(6)
    for k in (0, 6, True, 2.0):
        with pytest.raises(ArgumentError, match=f"k is {k}; valid: 1 to 5"):
            manifold(x, x, k)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="count is 7; valid: 1 to 6"):
        nearest(x, x, 7)
    with pytest.raises(ArgumentError, match=r"6 \(drawn\) and 5 \(real\) dimensions"):
        nearest(x, x[:, :5])
    with pytest.raises(ArgumentError, match=r"drawn features are float64 \[1, 6\].*n >= 2"):
        manifold(x[:1], x)
    with pytest.raises(ArgumentError, match=r"training features are float64 \[1, 6\].*n >= 2"):
        authenticity(x, x[:1])
    with pytest.raises(ArgumentError, match="real features hold NaN or infinity"):
        manifold(x, np.where(x > 0, np.inf, x))
    with pytest.raises(ArgumentError, match=r"drawn features are complex128"):
        manifold(x + 0j, x)
    assert nearest(np.zeros((2, 3)), np.zeros((2, 3))).distances.tolist() == [[0], [0]]


# Diversity ---------------------------------------------------------------------------------------


def noisy_pair(n: int, h: int, w: int, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth pictures and noisy ones of them, each noisier than the one before."""
    y, x = np.mgrid[:h, :w]
    waves = [np.sin(x / (3 + k + i) + y / (5 + i)) for i in range(n) for k in range(c)]
    smooth = np.array(waves).reshape(n, c, h, w).transpose(0, 2, 3, 1) * 100 + 128
    noise = np.random.default_rng(0).normal(size=smooth.shape) * np.arange(1, n + 1).reshape(n, 1, 1, 1) * 8
    return smooth.astype(np.uint8), (smooth + noise).clip(0, 255).astype(np.uint8)


def test_ms_ssim_is_that_of_pytorch_msssim() -> None:
    """The values of its version 1.0.0 in float64, but for its window's weights, which are float32."""
    a, b = noisy_pair(3, 176, 192, 3)
    assert ms_ssim(a, b) == pytest.approx([0.99695045, 0.98499382, 0.96345698], abs=3e-7)
    assert ms_ssim(a, b, 3) == pytest.approx([0.99541904, 0.97661585, 0.94323077], abs=3e-7)
    assert ms_ssim(a, b, 2) == pytest.approx([0.99167428, 0.95738188, 0.89788072], abs=3e-7)


def test_ms_ssim_is_the_formula_of_the_paper() -> None:
    """Written with loops, for one grey picture of odd sides, the way of the authors' code."""
    a, b = noisy_pair(2, 45, 51, 1)
    ramp = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(ramp, ramp) / ramp.sum() ** 2
    weights = np.array([0.0448, 0.2856, 0.3001])
    for which in (0, 1):
        x, y = (p[which, ..., 0].astype(float) for p in (a, b))
        product = 1.0
        for scale in range(3):
            luminance, structure = [], []
            for i, j in itertools.product(range(x.shape[0] - 10), range(x.shape[1] - 10)):
                p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                luminance.append((2 * mp * mq + 6.5025) / (mp**2 + mq**2 + 6.5025))
                structure.append((2 * cov + 58.5225) / (vp + vq + 58.5225))
            last = np.multiply(luminance, structure) if scale == 2 else structure
            product *= np.mean(last) ** (weights[scale] / weights.sum())
            rows, columns = (np.minimum(np.arange(0, side + side % 2), side - 1) for side in x.shape)
            x, y = (p[rows][:, columns] for p in (x, y))  # an odd last line twice
            x, y = ((p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4 for p in (x, y))
        assert ms_ssim(a[which : which + 1], b[which : which + 1], 3)[0] == pytest.approx(product, rel=1e-9)


def test_ms_ssim_takes_as_many_scales_as_fit() -> None:
    for side, scales in ((11, 1), (21, 1), (22, 2), (28, 2), (87, 3), (88, 4), (175, 4), (176, 5), (400, 5)):
        a, b = noisy_pair(1, side, side + 3, 1)
        assert ms_ssim(a, b) == ms_ssim(a, b, scales)
        assert ms_ssim(a, a) == pytest.approx(1, rel=1e-12)
        with pytest.raises(ArgumentError, match=f"scales is {scales + 1}; valid: 1 to {scales} for pictures of {side}"):
            ms_ssim(a, b, scales + 1)
    a, b = noisy_pair(2, 20, 20, 3)
    assert ms_ssim(a, b) == pytest.approx(ssim(a, b))  # of one scale
    inverse = ms_ssim(a, 255 - a)
    assert inverse.tolist() == [0, 0]  # negative similarities


def test_picture_diversity_falls_with_variety(rng: np.random.Generator) -> None:
    varied = rng.integers(0, 256, (40, 14, 14, 1), dtype=np.uint8)
    few = np.repeat(varied[:2], 20, axis=0)
    labels = np.repeat([0, 1], 20)
    assert picture_diversity(few, labels) == (1, 0, 20)  # the pictures of each class are the same
    mixed = picture_diversity(few)
    assert picture_diversity(varied).value < 0.2 < mixed.value < 1
    assert picture_diversity(varied, pairs=7).pairs == 7


def test_pairs_are_disjoint_of_one_class_and_tell_their_error(rng: np.random.Generator) -> None:
    features = np.arange(101.0)[:, None] ** 2  # each distance tells its pair
    labels = rng.integers(0, 3, 101)
    seen = []

    def note(pairs: int) -> float:
        found = feature_diversity(features, labels, pairs)
        seen.append(found.value * found.pairs)
        return found.pairs

    assert [note(pairs) for pairs in (1, 2, 10_000)] == [1, 2, sum(np.bincount(labels) // 2)]
    own = {(features[j] - features[i])[0] for i, j in itertools.combinations(range(101), 2) if labels[i] == labels[j]}
    assert seen[0] in own
    assert seen[1] - seen[0] in own
    draws = [feature_diversity(rng.normal(size=(100, 3))) for _ in range(200)]
    # Two standard normals in 3 dimensions are 4 / sqrt(pi) apart on average.
    assert np.mean([d.value for d in draws]) == pytest.approx(4 / np.pi**0.5, rel=0.02)
    assert np.mean([d.error**2 for d in draws]) ** 0.5 == pytest.approx(np.std([d.value for d in draws]), rel=0.2)


def test_diversity_says_what_it_takes() -> None:
    pictures = np.zeros((4, 10, 40, 3), np.uint8)
    with pytest.raises(ArgumentError, match="10 x 40; MS-SSIM's window takes 11 x 11 pixels or more: use the distance"):
        picture_diversity(pictures)
    with pytest.raises(ArgumentError, match="two equal shapes"):
        ms_ssim(pictures, pictures[:2])
    with pytest.raises(ArgumentError, match="of 4 pictures no two make a pair"):
        picture_diversity(pictures, np.arange(4))
    with pytest.raises(ArgumentError, match="of 0 pictures no two make a pair"):
        picture_diversity(pictures[:0])
    with pytest.raises(ArgumentError, match=r"labels are \[3\]; valid: one for each picture, \[4\]"):
        picture_diversity(pictures, np.arange(3))
    with pytest.raises(ArgumentError, match="pairs is 0"):
        feature_diversity(np.eye(3), pairs=0)
    with pytest.raises(ArgumentError, match="features hold NaN or infinity"):
        feature_diversity(np.array([[1.0], [np.nan]]))
    assert np.isnan(feature_diversity(np.eye(2)).error)
