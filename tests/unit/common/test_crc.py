"""The CRC-32 of two stretches of bytes, from that of each."""

import zlib

from hypothesis import example, given
from hypothesis import strategies as st

from common.crc import combined, crc32


@given(st.binary(max_size=300), st.binary(max_size=3000))
@example(b"", b"")
@example(b"\0" * 9, b"\0" * 2000)
def test_it_is_the_checksum_of_both_together(one, other):
    assert combined(crc32(one), crc32(other), len(other)) == zlib.crc32(one + other)
