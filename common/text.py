"""Texts for a person: words for numbers, and letters that are safe to print."""

import math
import re

#: Control characters but tab and newline, other ends of lines, characters that change the direction
#: of writing or are not seen, and halves of surrogate pairs, with the escape sequences that show
#: them. A terminal would obey them: move the cursor, hide text, ring. In JSON, which has those
#: below 0x20 escaped already, the others are escaped as here.
ESCAPES = {
    code: chr(code).encode("unicode_escape").decode() if code < 0x20 else f"\\u{code:04x}"
    for code in (
        *range(0x20),
        *range(0x7F, 0xA0),
        *(0x061C, 0xFEFF),
        *range(0x200B, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xD800, 0xE000),
        *range(0xFFF9, 0xFFFC),
    )
    if chr(code) not in "\t\n"
}

#: The login in a URL, up to the last ``@`` before a slash. In one of Redis, up to the last ``@``: a
#: password may have a slash that should have been written as %2F, and few paths have a ``@``.
LOGIN = re.compile(r"(?:(?<=redis)|(?<=rediss)|(?<=socket)|(?<=unix))://[^\s'\"]*@|://[^\s/'\"]*@")


def printable(text: str) -> str:
    """Return a text with control characters made visible, such as ``\\x1b`` for Escape."""
    return text.translate(ESCAPES)


def one_line(text: str) -> str:
    """Return a text as one line that does nothing to a terminal."""
    return printable(text).replace("\n", "\\n")


def without_login(text: str) -> str:
    """Return a text without the user and password of the URLs in it."""
    return LOGIN.sub("://***@", text)


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 record``, ``2,000 records``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def counted_batches(number: int) -> str:
    """Return a number of batches: ``1 batch``, ``2,000 batches``."""
    return f"{number:,} batch" if number == 1 else f"{number:,} batches"


def counted_bytes(number: int) -> str:
    """Return a number of bytes: ``312 bytes``, ``4.2 MB``, ``1.3 TB``."""
    if number < 1000:
        return counted(number, "byte")
    units = ("kB", "MB", "GB", "TB", "PB")
    power = min(len(units), int(math.log10(number) // 3))
    return f"{number / 1000**power:.1f} {units[power - 1]}"


def duration(seconds: float) -> str:
    """Return seconds in readable units: ``42 s``, ``3 min 20 s``, ``5 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
