"""Scores by a classifier: the published formula, known answers, and what they refuse."""

import math
import warnings

import numpy as np
import pytest

from edgegan.errors import ArgumentError, EdgeGANWarning
from edgegan.trainer.data import sample_order
from edgegan.trainer.metrics.classes import accuracy, class_distances, class_score
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance


@pytest.fixture
def rng() -> np.random.Generator:
    """Each test draws the same numbers, whichever ran before."""
    return np.random.default_rng(0)


def certain(labels: np.ndarray, classes: int, by: float = 1e4) -> np.ndarray:
    """Logits of a classifier without a doubt: the other probabilities are 0 in float64."""
    return np.eye(classes)[labels] * by


# Class score -------------------------------------------------------------------------------------


def test_class_score_is_the_published_formula(rng: np.random.Generator) -> None:
    """Salimans et al.'s code, from probabilities, on the order that class_score takes."""
    logits = rng.normal(size=(105, 7)) * 2 + 50
    preds = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[sample_order(0, 0, 105, 105)]
    for splits in (1, 4, 10):
        scores = []
        for i in range(splits):
            part = preds[(i * 105 // splits) : ((i + 1) * 105 // splits)]
            kl = part * (np.log(part) - np.log(np.expand_dims(np.mean(part, 0), 0)))
            scores.append(np.exp(np.mean(np.sum(kl, 1))))
        found = class_score(logits, splits)
        assert found == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-12)
        assert class_score(logits.astype(np.float32), splits) == pytest.approx(found, rel=1e-5)


def test_class_score_of_known_probabilities() -> None:
    every = np.arange(1000) % 10
    assert class_score(certain(every, 10), 1) == pytest.approx((10, 0))  # sure, and all classes alike
    assert class_score(np.zeros((1000, 10))) == pytest.approx((1, 0))  # no idea
    assert class_score(certain(every * 0 + 3, 10)) == pytest.approx((1, 0))  # sure, and always of one class
    assert class_score(certain(np.arange(999) % 3 * 2, 10, 1e300), 1) == pytest.approx((3, 0))
    # A classifier that gives its class probability p, and the others the rest: exp of log 4 less the entropy.
    p = 0.7
    logits = np.log(np.full((400, 4), 0.1) + np.eye(4)[np.arange(400) % 4] * 0.6)
    entropy = -p * math.log(p) - 3 * 0.1 * math.log(0.1)
    assert class_score(logits, 1).mean == pytest.approx(4 * math.exp(-entropy))


@pytest.mark.parametrize("order", ["sorted", "in turn"])
def test_class_score_of_sets_sorted_by_class(order: str) -> None:
    labels = np.arange(5000) % 10 if order == "in turn" else np.repeat(np.arange(10), 500)
    score = class_score(certain(labels, 10))
    assert 9.5 < score.mean < 10
    assert score.deviation < 0.2


# Accuracy ----------------------------------------------------------------------------------------


def test_accuracy_total_and_by_class() -> None:
    asked = np.array([0, 0, 0, 0, 1, 1, 3, 3, 3, 3])
    seen = np.array([0, 0, 0, 1, 1, 1, 3, 2, 2, 2])
    found = accuracy(certain(seen, 5), asked)
    assert found.total == 6 / 10
    np.testing.assert_array_equal(found.classes, [0.75, 1, np.nan, 0.25, np.nan])
    assert accuracy(np.zeros((4, 3)), np.array([0, 0, 1, 2])).total == 0.5  # of equal logits the first


# Distances class by class ------------------------------------------------------------------------


def test_class_distances_are_those_of_each_class(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 600) + 4
    real, drawn = rng.normal(size=(2, 600, 5))
    drawn[labels == 5] += 1
    found = class_distances(drawn, labels, real, labels)
    assert list(found) == [4, 5, 6]
    for label, distance in found.items():
        apart = (Statistics.of(x[labels == label]) for x in (drawn, real))
        assert distance == frechet_distance(*apart)
    assert found[5] > 5 > 1 > found[4] + found[6]
    # All classes are there, but not where they were asked for: only the distance of each tells.
    shuffled = class_distances(real + 5 * labels[:, None], np.roll(labels, 1), real + 5 * labels[:, None], labels)
    assert min(shuffled.values()) > 10


def test_class_distances_leave_out_classes_without_real_pictures(rng: np.random.Generator) -> None:
    x, labels = rng.normal(size=(90, 2)), np.arange(90) % 3
    some = labels < 2
    assert list(class_distances(x, labels, x[some], labels[some])) == [0, 1]
    with pytest.raises(ArgumentError, match=r"class 2 has 0 drawn and 30 real pictures; valid: 2 or more of each.*20"):
        class_distances(x[some], labels[some], x, labels)


def test_class_distances_warn_once_of_few_pictures(rng: np.random.Generator) -> None:
    x, labels = rng.normal(size=(90, 16)), np.arange(90) % 3
    with pytest.warns(EdgeGANWarning, match="30 samples of 16 features in class 0.*take 32 at least") as told:
        class_distances(x, labels, x, labels)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        class_distances(x[:, :15], labels, x[:, :15], labels)


def test_classes_say_what_they_take() -> None:
    logits, labels = np.eye(4), np.arange(4)
    for splits in (0, True, 1.0):
        with pytest.raises(ArgumentError, match=f"splits is {splits}; valid: 1 or more"):
            class_score(logits, splits)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"logits are \[4, 4\]; valid: \[n, classes\], n >= 10"):
        class_score(logits)
    for wrong in (logits[0], logits[:0]):
        with pytest.raises(ArgumentError, match="logits are"):
            class_score(wrong, 1)
    with pytest.raises(ArgumentError, match="logits hold NaN or infinity"):
        accuracy(logits * np.nan, labels)
    with pytest.raises(ArgumentError, match="labels go from 1 to 4; the classifier has classes 0 to 3"):
        accuracy(logits, labels + 1)
    for bad in (labels[:3], labels / 1.0, labels[None]):
        with pytest.raises(ArgumentError, match=r"asked-for labels are .*; valid: integers \[4\]"):
            accuracy(logits, bad)
    with pytest.raises(ArgumentError, match=r"real labels are int64 \[3\]; valid: integers \[4\]"):
        class_distances(logits, labels, logits, labels[:3])
    with pytest.raises(ArgumentError, match=r"4 \(drawn\) and 3 \(real\) dimensions"):
        class_distances(logits, labels, logits[:, :3], labels)
