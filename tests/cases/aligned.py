"""Reads of BAM and CRAM, whole and broken."""

from functools import partial

from tests.cases.case import Aligned, alignments, gz
from tests.cases.case import read as any_read
from tests.cases.case import refused as any_refused

read, refused = partial(any_read, dna=True), partial(any_refused, dna=True)

#: A pair, of which one read is on the other strand; a read, its other alignments, and its namesake.
READS: list[Aligned] = [
    ("pair", 0x1 | 0x40, "ACGT"),
    ("pair", 0x1 | 0x80 | 0x10, "AACC"),
    ("one", 0x4, "GG"),
    ("one", 0x800, "G"),
    ("one", 0x100, "GG"),
    ("one", 0x4, "TT"),
]
FOUND = (("pair/1", "ACGT"), ("pair/2", "GGTT"), ("one", "GG"), ("one", "TT"))

#: The block that ends a BAM file.
END = 28


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def bam(*reads: Aligned) -> bytes:
    return alignments("wb", *reads)


def cram(*reads: Aligned) -> bytes:
    return alignments("wc", *reads)


CASES = [
    read(
        "BAM with pairs and other alignments", lambda: bam(*READS), *FOUND, counts={"duplicates": 1}
    ),
    read(
        "CRAM with pairs and other alignments",
        lambda: cram(*READS),
        *FOUND,
        counts={"duplicates": 1},
    ),
    read("BAM with another suffix", lambda: bam(("a", 4, "ACGT")), ("a", "ACGT"), name="in.fa"),
    read("BAM with codes of IUPAC", lambda: bam(("a", 4, "ACRYN")), ("a", "ACRYN")),
    read(
        "BAM with a read without letters, left out",
        lambda: bam(("a", 4, ""), ("b", 4, "AC")),
        ("b", "AC"),
        rows=(1,),
        options={"empty": "skip"},
        counts={"empty": 1},
    ),
    refused(
        "BAM with a read without letters",
        lambda: bam(("a", 4, "AC"), ("b", 4, "")),
        "in, read 2: record 2 ('b') has no sequence. Remove it, or set empty to skip "
        "(leave such records out).",
    ),
    refused(
        "BAM with = for a base of the reference",
        lambda: bam(("a", 4, "AC"), ("b", 4, "A=C")),
        "in, read 2: record 2 ('b') has '=' at position 2, which is not one of the "
        "model's bases. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused("BAM without reads", lambda: bam(), "in is empty: it contains no record."),
    refused("CRAM without reads", lambda: cram(), "in is empty: it contains no record."),
    refused(
        "BAM with nothing but other alignments",
        lambda: bam(("a", 0x100, "AC")),
        "in is empty: it contains no record.",
    ),
    refused(
        "BAM without the block that ends it",
        lambda: bam(*READS)[:-END],
        "in.bam, after read 0: cannot be read to its end (...). Is the file complete? "
        "Nothing was queued.",
        name="in.bam",
        seen="samtools/htslib#1880",
    ),
    refused(
        "BAM cut in its reads",
        lambda: half(bam(*READS * 2000)),
        "in.bam, after read 0: cannot be read to its end (...). Is the file complete? "
        "Nothing was queued.",
        name="in.bam",
    ),
    refused(
        "CRAM cut in its reads",
        lambda: half(cram(*READS * 2000)),
        "in.cram, after read 4: cannot be read to its end (...). Is the file complete, "
        "and the reference at hand (REF_PATH)? Nothing was queued.",
        name="in.cram",
    ),
    refused(
        "BAM of its first bytes",
        lambda: gz(b"BAM\1"),
        "in.bam, after read 0: cannot be read to its end (...). Is the file complete? "
        "Nothing was queued.",
        name="in.bam",
    ),
    refused(
        "CRAM of its first bytes",
        b"CRAM\3\0",
        "in.cram, after read 0: cannot be read to its end (...). Is the file complete? "
        "Nothing was queued.",
        name="in.cram",
    ),
    refused(
        "BAM inside gzip",
        lambda: gz(bam(*READS)),
        "in.bam.gz looks like a file of gzip inside another, which is not read. It is "
        "packed twice: unpack it once.",
        name="in.bam.gz",
    ),
    refused(
        "CRAM inside gzip",
        lambda: gz(cram(*READS)),
        "in.cram.gz: CRAM inside another compression is not read. Unpack it first.",
        name="in.cram.gz",
    ),
    refused(
        "SAM as samtools writes it",
        lambda: alignments("w", *READS),
        "in.sam looks like SAM, which is not read. Convert it to BAM by samtools view -b.",
        name="in.sam",
    ),
    refused(
        "BCF",
        lambda: gz(b"BCF\2\2" + bytes(20)),
        "in.bcf looks like BCF, which is not read. Convert it to FASTA.",
        name="in.bcf",
    ),
]
