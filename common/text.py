"""Texts for a person: words for numbers, and letters that are safe to print."""

#: Control characters but tab and newline, and those that change the direction of writing, with the
#: escape sequences that show them. A terminal would obey them: move the cursor, hide text, ring.
ESCAPES = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (
        *range(0x20),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
    if chr(code) not in "\t\n"
}


def printable(text: str) -> str:
    """Return a text with control characters made visible, such as ``\\x1b`` for Escape."""
    return text.translate(ESCAPES)


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 record``, ``2,000 records``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def counted_batches(number: int) -> str:
    """Return a number of batches: ``1 batch``, ``2,000 batches``."""
    return f"{number:,} batch" if number == 1 else f"{number:,} batches"
