"""Pauses between the retries of an operation."""

import random
from collections.abc import Callable, Iterator


def backoff(
    retries: int, *, first: float, longest: float, draw: Callable[[], float] = random.random
) -> Iterator[float]:
    """Yield the seconds to wait before each retry: exponential backoff with full jitter.

    Each pause is drawn uniformly between 0 and a ceiling, so that clients that failed together do
    not retry together. The ceiling starts at ``first`` seconds, doubles with every retry and never
    exceeds ``longest``. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015.

    Args:
        draw: returns a random number from 0 to 1.
    """
    ceiling = min(first, longest)
    for _ in range(retries):
        yield draw() * ceiling
        ceiling = min(2 * ceiling, longest)
