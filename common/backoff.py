"""Pauses between the tries of what may work the next time."""

import random
from collections.abc import Callable, Iterator


def backoff(
    retries: int, *, first: float, longest: float, draw: Callable[[], float] = random.random
) -> Iterator[float]:
    """Seconds to wait before each retry: exponential backoff with full jitter.

    Each pause is drawn from all between nothing and a ceiling, so that those who failed together
    do not come back together. The ceiling is ``first`` seconds, doubles with every retry and ends
    at ``longest``. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
    2015.

    Args:
        draw: gives numbers from 0 to 1.
    """
    ceiling = min(first, longest)
    for _ in range(retries):
        yield draw() * ceiling
        ceiling = min(2 * ceiling, longest)
