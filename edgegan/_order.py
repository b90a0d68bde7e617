"""Work done by several threads, its results in order: for batches, since onnxruntime and most of our C run without the
interpreter's lock."""

from collections.abc import Callable, Generator, Iterable
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")


def in_order(tasks: Iterable[Callable[[], T]], workers: int) -> Generator[T, None, None]:
    """What each of `tasks` returns, in their order; at most `workers` run at once, and twice as many wait or are done.

    One worker, or one task, is the calling thread itself, when the next result is asked for. When a task raises, when
    the caller is interrupted here, or when the iterator is closed, those that run come to their end and no more begin.
    """
    tasks = iter(tasks)
    head = list(islice(tasks, 2))
    if workers == 1 or len(head) < 2:
        for task in chain(head, tasks):
            yield task()
        return
    # Here, because a short command does not need it, and its import takes milliseconds.
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers)
    window: list[Future[T]] = []
    try:
        for task in chain(head, tasks):
            window.append(pool.submit(task))
            if len(window) == 2 * workers:
                yield window.pop(0).result()
        while window:
            yield window.pop(0).result()
    finally:
        pool.shutdown(cancel_futures=True)
