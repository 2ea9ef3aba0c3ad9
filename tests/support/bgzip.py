"""Files as bgzip writes them."""

import struct
import zlib

#: The empty member at the end of each file. Source: the specification of SAM, 4.1.2.
END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzip(data: bytes, block_bytes: int = 65_280) -> bytes:
    """Return data as bgzip packs them."""
    starts = range(0, len(data), block_bytes)
    return b"".join(member(data[start : start + block_bytes]) for start in starts) + END


def member(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(data) + packer.flush()
    size = 18 + len(packed) + 8
    header = struct.pack("<4BI2BHHHH", 31, 139, 8, 4, 0, 0, 255, 6, 0x4342, 2, size - 1)
    return header + packed + struct.pack("<II", zlib.crc32(data), len(data))
