"""Compressed files and archives, whole and broken."""

from tests.cases.case import PACKED, Case, gz, read, refused, tar, zipped, zst

FASTA = b">a\nMKT\n"
MANY = b"".join(b">r%d\n%s\n" % (n, b"MKTAYIAKQR" * 9) for n in range(999))

CUT = (
    "{name}, after record 0: cannot be read to its end (...). Is the file complete? Nothing was "
    "queued."
)


def cases_of(suffix: str) -> list[Case]:
    """Return the cases that each kind of compression has."""
    pack, name = PACKED[suffix], f"in.fa.{suffix}"
    other = "in.fa.xz" if suffix == "gz" else "in.fa.gz"
    twice = (("a", "MKT"), ("a", "MKT"))
    return [
        read(f"{suffix} with no suffix", lambda: pack(FASTA), ("a", "MKT")),
        read(f"{suffix} with the suffix of another", lambda: pack(FASTA), ("a", "MKT"), name=other),
        read(f"two members of {suffix}", lambda: pack(FASTA) * 2, *twice, counts={"duplicates": 1}),
        refused(
            f"{suffix} without its last byte",
            lambda: pack(FASTA)[:-1],
            CUT.format(name=name),
            name=name,
        ),
        refused(
            f"{suffix} of nothing",
            lambda: pack(b""),
            f"{name} is empty: it contains no record.",
            name=name,
        ),
    ]


def cut(kind: str, *parts: bytes, name: str = "in.fa.gz") -> Case:
    return refused(kind, b"".join(parts), CUT.format(name=name), name=name)


def foreign(kind: str, name: str, data: bytes, what: str, advice: str) -> Case:
    """Return a case of a file that looks like something else."""
    message = f"{name} looks like {what}, which is not read. {advice}."
    return refused(kind, data, message, name=name)


TWICE = "It is packed twice: unpack it once"
FROM_ZIP = "Unpack it, or, of Excel, save the table as CSV"
FROM_TAR = "Unpack it, and name its files or their folder"

CASES = [
    *(case for suffix in PACKED for case in cases_of(suffix)),
    read("plain FASTA with the suffix of gzip", FASTA, ("a", "MKT"), name="in.fa.gz"),
    read("gzip and zeros after it", gz(FASTA) + bytes(512), ("a", "MKT"), name="in.fa.gz"),
    cut("gzip cut in the middle", gz(MANY)[:1000]),
    cut("gzip of ten bytes", gz(FASTA)[:10]),
    cut("gzip with a wrong checksum", gz(FASTA)[:-8], bytes(8)),
    cut("gzip with wrong bytes inside", gz(MANY)[:900], b"\xff\xff", gz(MANY)[902:]),
    cut("gzip and text after it", gz(FASTA), b"<html>"),
    cut("zstd and text after it", zst(FASTA), b"<html>", name="in.fa.zst"),
    foreign("gzip twice", "in.fa.gz", gz(gz(FASTA)), "a file of gzip inside another", TWICE),
    foreign("zstd inside gzip", "in.fa.gz", gz(zst(FASTA)), "a file of zstd inside another", TWICE),
    foreign("ZIP", "in.zip", zipped(FASTA), "a ZIP archive", FROM_ZIP),
    foreign("ZIP named FASTA", "in.fa", zipped(FASTA), "a ZIP archive", FROM_ZIP),
    foreign("tar", "in.tar", tar(FASTA), "a tar archive", FROM_TAR),
    foreign("tar inside gzip", "in.tar.gz", gz(tar(FASTA)), "a tar archive", FROM_TAR),
    foreign(
        *("compress of old Unix", "in.fa.Z", b"\x1f\x9d\x90>\xc2"),
        *("a file of compress (.Z)", "Unpack it"),
    ),
    foreign("7-Zip", "in.7z", b"7z\xbc\xaf\x27\x1c\0\4", "a 7-Zip archive", "Unpack it"),
    foreign("RAR", "in.rar", b"Rar!\x1a\7\1\0", "a RAR archive", "Unpack it"),
    foreign("LZ4", "in.fa.lz4", b"\x04\x22\x4d\x18\x64\x40", "a file of LZ4", "Unpack it"),
]
