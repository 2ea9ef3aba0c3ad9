"""A parallel map with a bounded number of items under way."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def bounded_map(action: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R]:
    """Yield ``action`` of every item, in order, with up to ``ahead`` items under way in threads.

    Items are taken as they are needed: at most ``ahead + 1`` are in memory, whatever their number.
    The first error of ``action`` or ``items`` is raised, once the items under way are done.
    """
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        for item in items:
            running.append(pool.submit(action, item))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
