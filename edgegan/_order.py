"""Work done by several threads, its results in order: for batches, since onnxruntime and most of our C run without the
interpreter's lock.

Ctrl-C and SIGTERM raise an exception in the main thread wherever it is, and where it is inside the locks of
concurrent.futures or threading, written in Python, one of these stays locked for good and the process hangs. What the
main thread calls here is written in C and is interrupted cleanly: SimpleQueue and _thread.
"""

import _thread
from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import chain, islice
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Crew(Generic[T]):
    """Threads that do tasks, and whose results are fetched in the order of the tasks.

    Leaving the context waits for the tasks that run, even if interrupted meanwhile, and drops those that do not yet.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._started = 0
        self._leaving = False
        self._tasks: SimpleQueue[tuple[Callable[[], T], SimpleQueue[Callable[[], T]]] | None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._results: deque[SimpleQueue[Callable[[], T]]] = deque()

    def __len__(self) -> int:
        """How many results are still to be fetched."""
        return len(self._results)

    def submit(self, task: Callable[[], T]) -> None:
        """Have it done by the next thread that is free."""
        while self._started < self._workers:  # all of them before the first task: see __exit__
            _thread.start_new_thread(self._work, ())
            self._started += 1
        result: SimpleQueue[Callable[[], T]] = SimpleQueue()
        self._results.append(result)
        self._tasks.put((task, result))

    def result(self) -> T:
        """What the earliest task returned whose result was not fetched yet, once it is there; raises what it raised."""
        return self._results.popleft().get()()

    def _work(self) -> None:
        while (item := self._tasks.get()) is not None:
            task, result = item
            if not self._leaving:
                result.put(_outcome(task))
            del item, task, result  # what a task holds must not stay while the next is waited for
        self._ended.put(None)

    def __enter__(self) -> "Crew[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        interrupted: BaseException | None = None
        # A thread that was started and, for an interruption, not counted has had no task, and ends as the others do.
        for _ in range(self._workers):
            self._tasks.put(None)
        while self._started:
            try:
                self._ended.get()
                self._started -= 1
            except BaseException as late:  # Ctrl-C once more: the files must still come to their end
                interrupted = late
        if interrupted is not None and error is None:
            raise interrupted


def _outcome(task: Callable[[], T]) -> Callable[[], T]:
    """What gives again what the task gave, or raises what it raised."""
    try:
        value = task()
    except BaseException as error:
        failure = error

        def fail() -> T:
            raise failure

        return fail
    return lambda: value


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
    with Crew[T](workers) as crew:
        for task in chain(head, tasks):
            crew.submit(task)
            if len(crew) == 2 * workers:
                yield crew.result()
        while crew:
            yield crew.result()
