"""Digests of sequences, by which rows of different jobs are known to be of the same one."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

#: Bytes of a digest: so many that no two sequences have the same one.
DIGEST_BYTES = 16

Digests = NDArray[np.uint64]  # [n, 2]


def digests_of(sequences: Iterable[str]) -> Digests:
    """Return the BLAKE2b digests of sequences, as two numbers of 64 bits each ``[n, 2]``."""
    return digests_of_encoded(map(str.encode, sequences))


def digests_of_encoded(sequences: Iterable[bytes]) -> Digests:
    """Return the same of sequences that are encoded."""
    digests = [hashlib.blake2b(s, digest_size=DIGEST_BYTES).digest() for s in sequences]
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
