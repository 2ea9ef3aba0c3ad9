"""What a case of an odd or broken input is, and small code that makes binary files."""

import bz2
import gzip
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from xopen import xopen

#: The content of a file: text as UTF-8, bytes, or what makes them when the test runs.
Data = str | bytes | Callable[[], bytes]

#: A header and its letters.
Read = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of input, and everything that is to come of it: records and counts, or a message."""

    kind: str
    #: Files by their names, and what a user names; empty: all of them, in this order.
    files: Mapping[str, Data] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    #: Objects of the bucket ``embeddings`` by their keys.
    objects: Mapping[str, Data] = field(default_factory=dict)
    #: Files with a name in each line, as of --from.
    lists: tuple[str, ...] = ()
    dna: bool = False
    #: Options as a program gives them.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: The whole message, with {here} for the folder that the command runs in, and (...) for what
    #: another library says.
    refused: str | None = None
    #: Header and letters of each record, and their rows; without them all from 0.
    read: tuple[Read, ...] = ()
    rows: tuple[int, ...] | None = None
    #: What was done to records, by the reader's name for it; whatever is not named is 0.
    counts: Mapping[str, int] = field(default_factory=dict)
    #: A public report of this kind, if one is known.
    seen: str = ""

    @property
    def id(self) -> str:
        return self.kind.replace(" ", "_")


def refused(kind: str, data: Data, message: str, *, name: str = "in", **more: Any) -> Case:
    """Return a case of one file that is refused with a message."""
    return Case(kind=kind, files={name: data}, refused=message, **more)


def read(kind: str, data: Data, *records: Read, name: str = "in", **more: Any) -> Case:
    """Return a case of one file that is read as some records."""
    return Case(kind=kind, files={name: data}, read=records, **more)


def content(data: Data) -> bytes:
    """Return the bytes of a file."""
    made = data() if callable(data) else data
    return made.encode() if isinstance(made, str) else made


#: What other libraries say of a damaged file, which depends on their versions.
OF_LIBRARY = re.compile(
    r"(?<=cannot be read to its end )\(.+\)(?=\. Is)|(?<=a damaged Parquet file )\(.+\)(?=\. Is)"
)


def without_library(message: str) -> str:
    """Return a message with (...) for what another library says."""
    return OF_LIBRARY.sub("(...)", message)


# --- packed files -------------------------------------------------------------------------------


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    buffer = BytesIO()
    with xopen(buffer, "wb", format="zst", threads=0) as file:
        file.write(data)
    return buffer.getvalue()


#: What packs bytes, by the suffix of its files.
PACKED = {"gz": gz, "bz2": bz2.compress, "xz": lzma.compress, "zst": zst}


def zipped(data: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("seqs.fa"), data)
    return buffer.getvalue()


def tar(data: bytes) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("seqs.fa")
        member.size = len(data)
        archive.addfile(member, BytesIO(data))
    return buffer.getvalue()


# --- Parquet, BAM and CRAM ----------------------------------------------------------------------


def parquet(**columns: Any) -> bytes:
    """Return a Parquet file with row groups of two rows."""
    pyarrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    buffer = BytesIO()
    writer.write_table(pyarrow.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


#: Read name, flag and letters as they are aligned.
Aligned = tuple[str, int, str]


def alignments(mode: str, *reads: Aligned) -> bytes:
    """Return a BAM ("wb"), CRAM ("wc") or SAM ("w") file as pysam writes it."""
    pysam = pytest.importorskip("pysam")
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 100}]}
    options = [b"no_ref=1"] if mode == "wc" else None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        with pysam.AlignmentFile(str(path), mode, header=header, format_options=options) as file:
            for name, flag, letters in reads:
                read = pysam.AlignedSegment(file.header)
                read.query_name, read.flag, read.query_sequence = name, flag, letters
                if not flag & 0x4:
                    read.reference_id, read.reference_start = 0, 5
                    read.cigarstring = f"{len(letters)}M"
                file.write(read)
        return path.read_bytes()
