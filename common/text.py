"""Words for numbers."""


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 record``, ``2,000 records``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def counted_batches(number: int) -> str:
    """Return a number of batches: ``1 batch``, ``2,000 batches``."""
    return f"{number:,} batch" if number == 1 else f"{number:,} batches"
