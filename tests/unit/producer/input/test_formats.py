"""Inputs that are not FASTA, as they are written; broken ones are in ``tests/cases``."""

import bz2
import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from common.alphabet import DNA, PROTEIN
from producer.input.columns import Columns
from producer.input.reader import Reader
from producer.input.source import Source
from tests.cases.case import parquet

SEQ = Columns("acc", "seq")


def reader_of(path: Path, **options) -> Reader:
    defaults = {"alphabet": PROTEIN, "unknown": "error", "long": "truncate", "max_residues": 1022}
    return Reader(Source(str(path)), **(defaults | options))


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a file and reads it as pairs of header and letters."""

    def run(data: str | bytes, name: str = "in", **options) -> list[tuple[str, str]]:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return [(record.header, record.residues) for record in reader_of(path, **options)]

    return run


# --- FASTQ --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        "@r1 x\nACGT\n+\nIIII\n@r2\nGG\n+r2\n@>\n",
        "@r1 x\r\nACGT\r\n+\r\nIIII\r\n@r2\r\nGG\r\n+\r\n@>",
        "\ufeff\n@r1 x\nAC\nGT\n+\n@I\n+I\n\n@r2\nGG\n+\n##\n\n",
        "@r1 x\nacgt\n+r1 x\n>III\n@r2\nG\nG\n+\n+\n@\n",
    ],
    ids=["four lines", "windows", "wrapped", "signs in qualities"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gz", "bz2"])
def test_fastq_is_known_by_its_content_and_loses_its_qualities(read, data, pack):
    found = read(pack(data.encode()), "reads.fa", alphabet=DNA)
    assert found == [("r1 x", "ACGT"), ("r2", "GG")]


def test_many_reads_are_read_in_order(read):
    data = "".join(f"@r{n}\n{'ACGT' * 40}\n+\n{'I' * 160}\n" for n in range(3000))
    found = read(data, alphabet=DNA)
    assert [header for header, _ in found] == [f"r{n}" for n in range(3000)]
    assert {letters for _, letters in found} == {"ACGT" * 40}


# --- CSV and TSV --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "columns"),
    [
        ("t.csv", "id,sequence\na x,MKT\nb,GAV\n", Columns()),
        ("t.tsv", "Sequence\tn\tID\nMKT\t1\ta x\nGAV\t2\tb\n", Columns()),
        ("t.csv", '\ufeffacc;seq\r\n"a x";"MK\r\nT"\r\nb;GAV', SEQ),
        ("t.txt", "acc,seq\na x,mkt*\n\nb,G A V\n", SEQ),
        ("t", "n\tacc\tseq\n\ta x\tMKT\n1\tb\tGAV\n", SEQ),
        ("t.CSV", "#acc,seq\na x,MKT\nb,GAV\n", Columns("#acc", "seq")),
        ("t.csv", 'acc,seq,note\na x,MKT,"1, 2"\nb,GAV,"a ""b"""\n', SEQ),
    ],
    ids=["usual", "tsv", "semicolons", "txt", "no suffix", "hash", "quotes"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_a_table_has_a_record_in_each_row(read, name, data, columns, pack):
    name = name if pack is bytes else f"{name}.gz"
    found = read(pack(data.encode()), name, columns=columns)
    assert found == [("a x", "MKT"), ("b", "GAV")]


def test_a_cell_may_be_longer_than_pythons_limit(read):
    assert len(read(f"id,sequence\na,{'MK' * 100_000}\n", "t.csv")[0][1]) == 200_000


# --- Parquet ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_is_known_by_its_content(read, kind):
    sequences = pa.array(["MKT", "gav", "MM*"]).cast(kind)
    data = parquet(x=[1, 2, 3], sequence=sequences, id=[7, 8, 9])
    assert read(data, "in.dat") == [("7", "MKT"), ("8", "GAV"), ("9", "MM")]


def test_ids_and_sequences_may_be_one_column(read):
    data = parquet(seq=["MKT", "GAV"])
    assert read(data, columns=Columns("seq", "seq")) == [("MKT", "MKT"), ("GAV", "GAV")]
