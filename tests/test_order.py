"""Work of several threads, its results in order."""

import faulthandler
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from edgegan._order import in_order


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_results_are_in_the_order_of_the_tasks(workers: int, count: int) -> None:
    def task(i: int) -> int:
        time.sleep(0.001 * (i % 3))  # later ones are done earlier
        return i

    assert list(in_order((partial(task, i) for i in range(count)), workers)) == list(range(count))


def test_as_many_run_at_once_as_there_are_workers() -> None:
    together = threading.Barrier(3)  # passes when three wait
    assert len(list(in_order([lambda: together.wait(10)] * 12, 3))) == 12


@pytest.mark.parametrize(("workers", "most"), [(1, 2), (2, 4), (5, 10)])
def test_endless_tasks_are_taken_few_at_a_time(workers: int, most: int) -> None:
    taken = 0

    def tasks() -> Iterator[partial[int]]:
        nonlocal taken
        while True:
            taken += 1
            yield partial(int, taken)

    results = in_order(tasks(), workers)
    for i in range(1, 30):
        assert next(results) == i
        assert taken <= i + most
    results.close()


def test_one_worker_is_the_thread_that_asks() -> None:
    assert set(in_order([threading.get_ident] * 5, 1)) == {threading.get_ident()}
    assert threading.get_ident() not in set(in_order([threading.get_ident] * 5, 2))


@pytest.mark.parametrize("workers", [1, 4])
def test_the_first_error_in_order_is_raised_and_nothing_runs_on(workers: int) -> None:
    begun: list[int] = []

    def task(i: int) -> int:
        begun.append(i)
        if i >= 3:
            raise ValueError(i)
        return i

    results = in_order((partial(task, i) for i in range(1000)), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^3$"):
        next(results)
    after = len(begun)
    assert after <= 3 + 2 * workers
    time.sleep(0.02)
    assert len(begun) == after


def test_closed_early_what_runs_comes_to_its_end() -> None:
    begun, done = [], []

    def task(i: int) -> None:
        begun.append(i)
        time.sleep(0.02)
        done.append(i)

    results = in_order((partial(task, i) for i in range(1000)), 3)
    next(results)
    results.close()
    assert sorted(begun) == sorted(done)
    assert len(begun) <= 6


@pytest.mark.skipif(sys.platform == "win32", reason="needs setitimer")
def test_interrupted_anywhere_it_neither_hangs_nor_breaks() -> None:
    """Ctrl-C can come between any two bytecodes of the main thread."""

    class Interruption(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    delays, interrupted = random.Random(5), 0
    before = signal.signal(signal.SIGALRM, interrupt)
    faulthandler.dump_traceback_later(60, exit=True)  # a hang would end no other way
    try:
        for _ in range(1000):
            try:
                signal.setitimer(signal.ITIMER_REAL, delays.uniform(1e-4, 3e-3))
                for _ in in_order((partial(int, i) for i in range(1_000_000)), 4):
                    pass
            except Interruption:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 1000


def test_a_second_interruption_waits_for_what_runs() -> None:
    done = []

    def slow() -> None:
        time.sleep(0.1)
        done.append(0)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        with pytest.raises(KeyboardInterrupt):
            list(in_order([slow] * 20, 2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(done) == 2
