"""A damaged file of any format is read, or refused by an error of this package."""

import gzip
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import DNA, PROTEIN, Alphabet
from common.errors import VirnucproError
from producer.input.columns import USUAL_COLUMNS, Columns
from producer.input.reader import Reader
from producer.input.source import Source
from producer.input.sources import AnySource, together
from tests.fuzz.fuzzing import EDITS, edited, fuzz

FASTA = b">a x\nMKTAYIAK\n>b\nGAVL\nMK\n"
FASTQ = b"@r1 x\nACGT\n+\nIIII\n@r2\nAC\nGT\n+r2\n@>\n+#\n@r3\n\n+\n\n"
TABLES = [
    b"id,sequence\na,MKT\nb,GAVL\n",
    b'sequence\tid\nMKT\t"a\nx"\n"GA ""VL"\tb\n\n',
    b"id;n;sequence\r\na;1;MKT\r\nb;;GAVL",
]


def parquet() -> bytes:
    file = BytesIO()
    table = pa.table({"id": ["a", "b", None], "sequence": ["MKT", "GAVL", ""]})
    pq.write_table(table, file, row_group_size=2)
    return file.getvalue()


def check_reading(source: AnySource, alphabet: Alphabet, columns: Columns = USUAL_COLUMNS) -> None:
    """Read a source: rows that come and rows that are counted as skipped are all rows."""
    reader = Reader(
        source,
        alphabet=alphabet,
        unknown="skip",
        empty="skip",
        long="truncate",
        max_residues=50,
        columns=columns,
    )
    with suppress(VirnucproError):
        records = list(reader)
        assert len(records) + reader.skipped + reader.empty == reader.read
        assert sum(reader.records_of) == reader.read
        assert [r.row for r in records] == sorted({r.row for r in records})
        assert all(r.residues and set(r.residues) <= alphabet.letters for r in records)


@fuzz()
@given(
    data=st.one_of(
        st.builds(edited, st.sampled_from([FASTQ, *TABLES]), EDITS),
        st.text(alphabet="@+\n\r ACGTI>#\t,", max_size=60).map(str.encode),
    ),
    suffix=st.sampled_from(["", ".csv", ".fastq"]),
    columns=st.sampled_from([USUAL_COLUMNS, Columns("n", "id"), Columns("id", "id")]),
    packed=st.booleans(),
)
def test_a_damaged_text_is_read_or_refused(data, suffix, columns, packed, tmp_path):
    path = tmp_path / f"in{suffix}"
    path.write_bytes(gzip.compress(data) if packed else data)
    check_reading(Source(str(path)), DNA if suffix == ".fastq" else PROTEIN, columns)


@fuzz()
@given(edits=EDITS)
def test_damaged_parquet_is_read_or_refused(edits, tmp_path):
    path = tmp_path / "in.parquet"
    path.write_bytes(edited(parquet(), edits))
    check_reading(Source(str(path)), PROTEIN)


@pytest.fixture(scope="module")
def bam(tmp_path_factory) -> bytes:
    pysam = pytest.importorskip("pysam")
    path = tmp_path_factory.mktemp("bam") / "in.bam"
    with pysam.AlignmentFile(str(path), "wb", header={"HD": {"VN": "1.6"}}) as file:
        for name, letters in (("a", "ACGT"), ("b", "GGTT")):
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.query_sequence = name, 4, letters
            file.write(read)
    return path.read_bytes()


@fuzz()
@given(edits=EDITS, inside=st.booleans())
def test_a_damaged_bam_is_read_or_refused(edits, inside, bam, tmp_path):
    path = tmp_path / "in.bam"
    # Without its own compression the damage is in the records rather than in gzip's checksum.
    path.write_bytes(
        gzip.compress(edited(gzip.decompress(bam), edits)) if inside else edited(bam, edits)
    )
    check_reading(Source(str(path)), DNA)


@fuzz()
@given(
    files=st.lists(
        st.one_of(st.builds(edited, st.sampled_from([FASTA, b"", *TABLES]), EDITS)),
        min_size=2,
        max_size=4,
    )
)
def test_several_files_lose_no_row(files, tmp_path):
    paths: list[Path] = []
    for number, data in enumerate(files):
        paths.append(tmp_path / f"{number}{'.csv' if b'id' in data else '.fa'}")
        paths[-1].write_bytes(data)
    check_reading(together([Source(str(path)) for path in paths]), PROTEIN)
