"""Sealed JSON objects: their last field, ``crc32``, is the checksum of the bytes before it.

Objects without it are of earlier versions. Earlier versions ignore it.
"""

import re
from typing import TypeVar

from common.crc import crc32
from common.wire.messages import Document

#: The end of a sealed object, and the most bytes of it.
SEAL, SEAL_BYTES = re.compile(rb',\s*"crc32": "([0-9a-f]{8})"\s*}\s*\Z'), 64

D = TypeVar("D", bound=Document)


def dump(document: Document) -> bytes:
    """Return a document as a sealed object."""
    before = document.model_dump_json(indent=1).encode().removesuffix(b"\n}")
    return before + b',\n "crc32": "%08x"\n}' % crc32(before)


def parse(kind: type[D], data: bytes) -> D:
    """Return the document that an object holds.

    Raises:
        ValueError: it is not one of this kind, or not what was written.
    """
    seal = SEAL.search(data, max(0, len(data) - SEAL_BYTES))
    if seal is not None and int(seal[1], 16) != crc32(data[: seal.start()]):
        raise ValueError("it has another checksum than when it was written")
    return kind.model_validate_json(data)
