"""What a file is that is not read, by how it begins, and what a user can do with it."""

import re
from typing import NamedTuple

from common.errors import InputError
from common.job.records import SHOWN

#: What is read, for messages.
READ = "FASTA, FASTQ, CSV, TSV, Parquet, BAM or CRAM, plain or packed as .gz, .bz2, .xz or .zst"

TWICE = "it is packed twice: unpack it once"


class Foreign(NamedTuple):
    """A format that is not read."""

    begin: str  # in Latin-1, which has a letter for each byte
    name: str
    advice: str = "convert it to FASTA"


#: Formats whose first bytes are in no FASTA, FASTQ or table.
BINARY = [
    Foreign("PK\3\4", "a ZIP archive", "unpack it, or, of Excel, save the table as CSV"),
    Foreign("7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    Foreign("Rar!\x1a", "a RAR archive", "unpack it"),
    Foreign("\x1f\x9d", "a file of compress (.Z)", "unpack it"),
    Foreign("\x04\x22\x4d\x18", "a file of LZ4", "unpack it"),
    Foreign("\x1f\x8b", "a file of gzip inside another", TWICE),
    Foreign("BZh91AY", "a file of bzip2 inside another", TWICE),
    Foreign("\xfd7zXZ", "a file of xz inside another", TWICE),
    Foreign("\x28\xb5\x2f\xfd", "a file of zstd inside another", TWICE),
    Foreign("\x89HDF", "HDF5", "name the file that its embeddings were made of"),
    Foreign("\x80\2", "a pickle of Python", "write its sequences as FASTA"),
    Foreign("\x80\3", "a pickle of Python", "write its sequences as FASTA"),
    Foreign("\x80\4", "a pickle of Python", "write its sequences as FASTA"),
    Foreign("\x80\5", "a pickle of Python", "write its sequences as FASTA"),
    Foreign("\x93NUMPY", "an array of NumPy", "write its sequences as FASTA"),
    Foreign("ARROW1", "Arrow", "save it as Parquet"),
    Foreign("SQLite format 3", "a database of SQLite", "write its sequences as FASTA"),
    Foreign("NCBI.sra", "SRA", "convert it by fasterq-dump"),
    Foreign("\x43\x27\x41\x1a", "2bit", "convert it by twoBitToFa"),
    Foreign("\x1a\x41\x27\x43", "2bit", "convert it by twoBitToFa"),
    Foreign("BCF\2", "BCF"),
    Foreign("\xd0\xcf\x11\xe0", "a document of Excel or Word", "save it as CSV, or as plain text"),
    *(
        Foreign(f"@{kind}\t", "SAM", "convert it to BAM by samtools view -b")
        for kind in ("HD", "SQ", "RG", "PG", "CO")
    ),
]

#: Marks of UTF-16, and a first ``>`` without one.
UTF16 = (b"\xff\xfe", b"\xfe\xff", b">\0", b"\0>")

#: Beginnings of texts; each is looked for in the first line, and in the first that is no comment.
TEXTS = [
    Foreign("LOCUS", "GenBank"),
    Foreign("ID ", "EMBL or UniProt's text"),
    Foreign("CLUSTAL", "Clustal"),
    Foreign("# STOCKHOLM", "Stockholm"),
    Foreign("#NEXUS", "NEXUS"),
    Foreign("##gff", "GFF"),
    Foreign("##fileformat=VCF", "VCF", "name the FASTA of its sequences"),
    Foreign("HEADER  ", "PDB"),
    Foreign("ATOM  ", "PDB"),
    Foreign("data_", "mmCIF"),
    Foreign("%PDF", "PDF", "save its sequences as plain text"),
    Foreign("{\\rtf", "RTF", "save it as plain text"),
    Foreign(
        "<", "XML or HTML", "download it again if it is an error's page, or convert it to FASTA"
    ),
    Foreign("{", "JSON"),
    Foreign("[", "JSON"),
    Foreign("version https://git-lfs", "a pointer of Git LFS", "fetch the file by git lfs pull"),
]

#: The first line of PHYLIP: how many sequences of how many letters.
PHYLIP = re.compile(r"\s*\d+\s+\d+\s*")

#: A line of a sequence.
LETTERS = re.compile(r"[A-Za-z*\-.\s]+")


def check_binary(first: bytes, name: str) -> None:
    """Check that a file is not of a format that is known by its first bytes, and is not read.

    Args:
        first: the file's first bytes, unpacked.
        name: of the file, for messages.

    Raises:
        InputError: it is.
    """
    found = next((form for form in BINARY if first.startswith(form.begin.encode("latin-1"))), None)
    if first.startswith(UTF16):
        raise utf16(name)
    if first[257:262] == b"ustar":
        found = Foreign("", "a tar archive", "unpack it, and name its files or their folder")
    if found is not None:
        advice = found.advice[0].upper() + found.advice[1:]
        raise InputError(f"{name} looks like {found.name}, which is not read. {advice}.", path=name)


def not_fasta(head: str, text: str, line: int, name: str) -> InputError:
    """Return the error of a text that has something else where the first record should begin.

    Args:
        head: the text from its beginning.
        text: the text from there on.
        line: the line there.
        name: of the file.
    """
    first = text.partition("\n")[0].rstrip()
    if "\0" in first:
        return not_text(name)
    shown = first if len(first) <= SHOWN else f"{first[:SHOWN]}…"
    hint = hint_of(head.lstrip("\ufeff \t\n"), first)
    return InputError(
        f"{name}, line {line}: not FASTA. Expected '>' at beginning of record, but got "
        f"{shown!r}.{hint}",
        path=name,
        line=line,
    )


def not_text(name: str) -> InputError:
    return InputError(
        f"{name}: neither text nor another format that is read. Give {READ}.", path=name
    )


def utf16(name: str) -> InputError:
    return InputError(
        f"{name}: its text is UTF-16, as some editors write it. Save it as UTF-8 (iconv -f UTF-16 "
        "-t UTF-8).",
        path=name,
    )


def hint_of(head: str, first: str) -> str:
    """Return what a text that is not FASTA may be, and what to do with it."""
    for form in TEXTS:
        if first.startswith(form.begin) or head.startswith(form.begin):
            return f" It looks like {form.name}: {form.advice}."
    if PHYLIP.fullmatch(first):
        return " It looks like PHYLIP: convert it to FASTA."
    if any(sign in first for sign in ",;\t"):
        return " If it is a table, name its column of sequences by --sequence-column."
    if LETTERS.fullmatch(first) and (first.isupper() or first.isalpha()):
        return " If it is a sequence without a header, put a line with > and an id before it."
    return f" What is read is {READ}."
