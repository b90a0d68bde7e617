"""Batches of a run: the same pictures whatever the batch, the processes and the workers."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from edgegan import noise
from edgegan.errors import ArgumentError
from edgegan.trainer.data import Dataset, sample_order
from edgegan.trainer.data.loader import Loader, split

SIZE = 50


def make(c=3, classes=True, size=SIZE, h=4, w=5):
    """A set whose first pixel of picture i is i."""
    images = np.random.default_rng(1).integers(0, 256, (size, h, w, c), np.uint8)
    images[:, 0, 0, 0] = images[:, 0, w - 1, 0] = np.arange(size)
    labels = np.arange(size) % 7 if classes else None
    return Dataset(images, labels, tuple("abcdefg") if classes else (), "set", "0" * 64)


def stream(loader, batches, batch=10, start=0):
    taken = [loader.take(start + i * batch) for i in range(batches)]
    return np.concatenate([images for images, _ in taken]), np.concatenate([labels for _, labels in taken])


def test_batches_are_the_sample_order():
    dataset = make()
    loader = Loader(dataset, 7, 10)
    images, labels = stream(loader, 12)  # over the ends of two epochs
    order = sample_order(7, 0, 120, SIZE)
    np.testing.assert_array_equal(images, dataset.images[order])
    np.testing.assert_array_equal(labels, dataset.labels[order])
    one, _ = loader.take(3)
    assert (one.dtype, one.flags.c_contiguous, one.flags.writeable) == (np.uint8, True, True)
    np.testing.assert_array_equal(one, dataset.images[sample_order(7, 3, 10, SIZE)])
    assert loader.take(0)[1].dtype == np.int64
    assert Loader(make(classes=False), 7, 10).take(0)[1] is None


def test_from_the_cache(dataset):
    images, labels = Loader(dataset, 3, 16).take(16)
    order = sample_order(3, 16, 16, len(dataset))
    assert type(images) is np.ndarray, "no memory map"
    np.testing.assert_array_equal(images, dataset.images[order])
    np.testing.assert_array_equal(labels, dataset.labels[order])


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("size", [(4, 5), (200, 180)])
def test_mirrored_samples_are_those_of_the_random_stream(c, size):
    dataset = make(c, h=size[0], w=size[1])
    images, _ = stream(Loader(dataset, 7, 10, mirror=True), 12)
    plain = dataset.images[sample_order(7, 0, 120, SIZE)]
    words = noise.words(noise.derive_seed(7, 3), 120, 1, stream=noise.STREAM_TRAINING)[:, 0]
    flipped = words >= 2**31
    assert 40 < flipped.sum() < 80
    np.testing.assert_array_equal(images[flipped], plain[flipped, :, ::-1])
    np.testing.assert_array_equal(images[~flipped], plain[~flipped])
    other, _ = stream(Loader(dataset, 8, 10, mirror=True), 12)
    assert (other != images).any()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [2, 5])
def test_processes_together_show_what_one_shows(world, workers):
    dataset, options = make(), {"mirror": True, "holdout": 9}
    whole = stream(Loader(dataset, 7, 10, **options), 8)
    ranks = [Loader(dataset, 7, 10, rank=rank, world=world, workers=workers, **options) for rank in range(world)]
    for i in range(2):
        parts = [loader.take(nimg)[i] for nimg in range(0, 80, 10) for loader in ranks]
        np.testing.assert_array_equal(np.concatenate(parts), whole[i])
    for loader in ranks:
        loader.close()


def test_samples_do_not_depend_on_the_batch():
    dataset = make()
    a, _ = stream(Loader(dataset, 7, 10, mirror=True), 6)
    b, _ = stream(Loader(dataset, 7, 30, mirror=True), 2, 30)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing_whatever_the_order_of_calls(workers):
    dataset = make()
    plain = Loader(dataset, 7, 10, mirror=True)
    calls = [0, 10, 20, 20, 10, 500, 510, 5, 15, 10**12, 0, 0, 10, 40, 50]
    with Loader(dataset, 7, 10, mirror=True, workers=workers) as loader:
        for nimg in calls:
            for mine, expected in zip(loader.take(nimg), plain.take(nimg), strict=True):
                np.testing.assert_array_equal(mine, expected)
            assert len(loader._prepared) <= 2 * workers, "no more is kept"


def test_workers_prepare_the_next_batches():
    with Loader(make(), 7, 10, workers=2) as loader:
        made, real = [], loader._make
        loader._make = lambda nimg: made.append(nimg) or real(nimg)
        loader.take(100)
        for future in list(loader._prepared.values()):
            future.result(10)
        assert sorted(made) == [100, 110, 120, 130, 140]
        loader.take(110)
        loader._prepared[150].result(10)
        assert made.count(110) == 1, "it was ready"


def test_what_a_worker_meets_is_raised_by_take():
    with Loader(make(), 7, 10, workers=2) as loader:
        real = loader._make

        def fail_once(nimg):
            if nimg == 20:
                raise OSError("the disk is gone")
            return real(nimg)

        loader._make = fail_once
        loader.take(0)
        loader.take(10)
        with pytest.raises(OSError, match="the disk is gone"):
            loader.take(20)
        loader._make = real
        np.testing.assert_array_equal(loader.take(20)[0], Loader(make(), 7, 10).take(20)[0])


def test_close_ends_the_threads():
    before = threading.active_count()
    loader = Loader(make(), 7, 10, workers=3)
    stream(loader, 5)
    assert threading.active_count() > before
    loader.close()
    loader.close()
    assert threading.active_count() == before


PROGRAM = """
import os, signal, sys, time
import numpy as np
from edgegan.trainer.data import Dataset
from edgegan.trainer.data.loader import Loader
images = np.zeros((2000, 64, 64, 3), np.uint8)
loader = Loader(Dataset(images, None, (), "set", ""), 1, 256, mirror=True, workers=4)
loader.take(0)
print("ready", flush=True)
"""


@pytest.mark.parametrize(
    ("end", "number", "status"),
    [
        ("", None, 0),
        ("raise RuntimeError", None, 1),
        ("sys.exit(3)", None, 3),
        ("while True: loader.take(0)", signal.SIGINT, -signal.SIGINT),
        ("while True: loader.take(0)", signal.SIGTERM, -signal.SIGTERM),
    ],
)
def test_a_process_ends_with_batches_in_the_making(end, number, status):
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + end], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert run.stdout.readline() == "ready\n"
        if number:
            run.send_signal(number)
        run.communicate(timeout=20)
    finally:
        run.kill()  # one that does not end must not outlive its test
    assert run.returncode == status


# Held-out pictures --------------------------------------------------------------------------------


def test_held_out_pictures_are_never_shown():
    dataset = make()
    loader = Loader(dataset, 7, 10, holdout=8)
    held, labels = dataset.images[loader.held], dataset.labels[loader.held]
    assert held.shape == (8, 4, 5, 3)
    shown, _ = stream(loader, 42)  # ten epochs of 42
    numbers = shown[:, 0, 0, 0]
    assert np.bincount(numbers, minlength=SIZE).tolist() == [0 if i in held[:, 0, 0, 0] else 10 for i in range(SIZE)]
    np.testing.assert_array_equal(labels, held[:, 0, 0, 0] % 7)
    again = dataset.images[Loader(dataset, 7, 30, holdout=8, rank=1, world=2).held]
    np.testing.assert_array_equal(again, held)
    assert len(Loader(dataset, 7, 10).held) == 0


def test_split():
    shown, held = split(100, 20, 5)
    assert (shown.dtype, held.dtype) == (np.int64, np.int64)
    assert sorted([*shown, *held]) == list(range(100))
    assert (np.diff(shown) > 0).all()
    np.testing.assert_array_equal(split(100, 5, 5)[1], held[-5:])
    assert set(split(100, 20, 6)[1]) != set(held)
    assert split(2, 0, 0)[0].tolist() == [0, 1]
    for holdout in (-1, 99, 100):
        with pytest.raises(ArgumentError, match="valid: 0 to 98"):
            split(100, holdout, 0)
    with pytest.raises(ArgumentError, match="valid: 0 to 48"):
        Loader(make(), 7, 10, holdout=49)


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"batch": 9, "world": 2}, {"rank": 2, "world": 2}, {"rank": -1}, {"world": 0}, {"workers": -1}],
)
def test_arguments_out_of_range(wrong):
    with pytest.raises(ArgumentError, match="valid"):
        Loader(make(), 7, **({"batch": 10} | wrong))
