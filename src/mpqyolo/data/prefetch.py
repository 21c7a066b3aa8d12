"""Work done ahead of its use, in order, by a bounded number of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")


def prefetch(function: Callable[[Job], Done], jobs: Iterable[Job], workers: int) -> Iterator[Done]:
    """`map(function, jobs)` with up to `workers` + 1 results prepared ahead by threads; none with 0 workers.

    Threads suffice: OpenCV, Pillow and numpy release the interpreter while they work. Errors come out in their job's place.
    Closing the iterator, or Ctrl-C, waits for the jobs in hand only.
    """
    if workers <= 0:
        yield from map(function, jobs)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    waiting: deque[Future[Done]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
