"""A map that works ahead in threads, by so much and no more."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def bounded_map(action: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Like ``map``, in order, with up to ``ahead`` items under way at once.

    Items are taken as they are needed: memory holds one more than ``ahead``, whatever their number.
    The first error of ``action`` or ``items`` is raised; what is under way is waited for.
    """
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        for item in items:
            running.append(pool.submit(action, item))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
