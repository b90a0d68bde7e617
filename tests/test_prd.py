"""Precision over recall: known answers of distributions and of features, and that clusters are those of k-means."""

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from edgegan.errors import ArgumentError
from edgegan.trainer.metrics import prd
from edgegan.trainer.metrics.prd import BETA, curve_of_shares, precision_recall_curve


@pytest.fixture
def rng() -> np.random.Generator:
    """Each test draws the same numbers, whichever ran before."""
    return np.random.default_rng(0)


def test_one_origin_fills_the_square_and_two_are_in_the_corner(rng: np.random.Generator) -> None:
    x = rng.normal(size=(400, 7)).astype(np.float32)
    same = precision_recall_curve(x, x[::-1])
    np.testing.assert_allclose(np.maximum(same.precision, same.recall), 1, rtol=1e-12)
    assert same.best(BETA) == pytest.approx(1)
    assert same.best(1) == pytest.approx(1)
    apart = precision_recall_curve(x, x + 100)
    assert apart.precision.max() == apart.recall.max() == apart.best(1) == 0


def test_of_shares_the_ends_and_the_middle_are_known(rng: np.random.Generator) -> None:
    """The paper: at the ends the mass on the other's support; where both are equal, 1 less the total variation."""
    real, drawn = np.array([0.5, 0.3, 0.2, 0]), np.array([0.1, 0.6, 0, 0.3])
    curve = curve_of_shares(drawn, real)
    assert curve.precision[-1] == pytest.approx(0.7, abs=0.002)
    assert curve.recall[0] == pytest.approx(0.8, abs=0.002)
    middle = len(curve.recall) // 2
    assert curve.precision[middle] == pytest.approx(1 - np.abs(real - drawn).sum() / 2)
    assert curve.recall[middle] == pytest.approx(curve.precision[middle])
    assert (np.diff(curve.precision) >= -1e-12).all()
    assert (np.diff(curve.recall) <= 1e-12).all()
    other = curve_of_shares(real, drawn)  # the other way round precision is recall
    np.testing.assert_allclose(other.precision, curve.recall[::-1], rtol=1e-9)


def test_a_set_that_lacks_half_of_the_modes_has_quality_but_not_variety(rng: np.random.Generator) -> None:
    """The paper's figure of dropped and of invented classes: recall is their share, precision is whole; or so."""
    means = 50 * np.eye(10, 16)
    real = (means[np.arange(2000) % 10] + rng.normal(size=(2000, 16))).astype(np.float32)
    few = (means[np.arange(2000) % 5] + rng.normal(size=(2000, 16))).astype(np.float32)
    drops = precision_recall_curve(few, real, clusters=10)
    assert (drops.precision.max(), drops.recall.max()) == pytest.approx((1, 0.5), abs=0.003)
    assert drops.best(1 / BETA) > 0.97
    assert drops.best(BETA) < 0.52
    invents = precision_recall_curve(real, few, clusters=10)
    np.testing.assert_allclose(invents.precision, drops.recall[::-1], atol=0.02)


def test_clusters_are_as_good_as_those_of_scipy(rng: np.random.Generator) -> None:
    x = rng.normal(size=(500, 6)).astype(np.float32)
    draws = rng.random(8)
    labels = prd._clustered(x, draws)
    assert len(np.unique(labels)) == 8
    # Where Lloyd's algorithm ends, another round of it changes nothing.
    centres = np.array([x[labels == k].mean(axis=0) for k in range(8)])
    assert np.array_equal(kmeans2(x, centres, minit="matrix", iter=1)[1], labels)
    scatter = sum(np.square(x[labels == k] - centres[k]).sum() for k in range(8))
    assert scatter < 1.1 * min(
        sum(np.square(x[found == k] - x[found == k].mean(axis=0)).sum() for k in range(8))
        for found in (kmeans2(x.astype(np.float64), 8, minit="++", rng=k)[1] for k in range(5))
    )


def test_equal_pictures_and_one_cluster(rng: np.random.Generator) -> None:
    one = np.ones((30, 4), np.float32)
    assert precision_recall_curve(one, one).best(1) == pytest.approx(1)  # fewer points than clusters
    two = np.concatenate([np.zeros((15, 4)), one[:15]])
    assert precision_recall_curve(one, two).recall.max() == pytest.approx(0.5, abs=0.002)
    x = rng.normal(size=(50, 3))
    assert precision_recall_curve(x, x + 100, clusters=1).best(1) == pytest.approx(1)
    found = precision_recall_curve(x, x + 0.5)
    np.testing.assert_array_equal(found, precision_recall_curve(x, x + 0.5))  # always alike
    np.testing.assert_allclose(found, precision_recall_curve(1e30 * x, 1e30 * (x + 0.5)), rtol=1e-6)


def test_what_it_does_not_take() -> None:
    x = np.zeros((10, 3))
    for args, text in (
        ((x, x, 0), "clusters is 0; valid: 1 to 20"),
        ((x, x, 21), "clusters is 21; valid: 1 to 20"),
        ((x, x, 2, 0), "runs is 0; valid: 1 to 1000"),
        ((x, x[:, :2]), "features have 3 .drawn. and 2 .real. dimensions"),
        ((x, x[:0]), "real features are float64 .0, 3.; valid: numbers"),
        ((x + np.inf, x), "drawn features hold NaN or infinity"),
    ):
        with pytest.raises(ArgumentError, match=text):
            precision_recall_curve(*args)
