"""Inputs that are not FASTA: what is read of them, and a message for everything that is broken."""

import bz2
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.alphabet import DNA, PROTEIN
from common.errors import UserError
from producer.input.columns import Columns
from producer.input.reader import Reader
from producer.input.source import Source

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


@pytest.fixture
def refusal(tmp_path, read):
    """Return a function that reads a broken file, and returns the message without its folder."""

    def run(data: str | bytes, name: str = "in", **options) -> str:
        with pytest.raises(UserError) as caught:
            read(data, name, **options)
        return str(caught.value).replace(f"{tmp_path}/", "")

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


def test_an_empty_read_is_one_without_a_sequence(read, refusal):
    data = "@r1\n\n+\n\n@r2\nAC\n+\nII\n"
    assert read(data, alphabet=DNA, empty="skip") == [("r2", "AC")]
    assert refusal(data, alphabet=DNA).startswith("in, line 1: record 1 ('r1') has no sequence")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("@r\nACGT\n+\nIII\n", "in, line 1: the last record, 'r', is cut short: 3 of 4 qualities"),
        ("@r\nACGT\n+\n", "in, line 1: the last record, 'r', is cut short: 0 of 4 qualities"),
        ("@a\nA\n+\nI\n@r\nACGT\n", "in, line 5: the last record, 'r', is cut short: it has no +"),
        ("@a\nA\n+\nI\n@r", "in, line 5: the last record, 'r', is cut short: it has no"),
        ("@r\nAC\n+\nIII\n", "in, line 4: not FASTQ: record 'r' has 3 qualities for 2 letters"),
        ("@r\nAC\n+\nII\nxx\n", "in, line 5: not FASTQ: expected '@' at beginning of record"),
        ("@r\nAC\n+\nII\n>s\nAC\n", "in, line 5: not FASTQ: expected '@' at beginning of record"),
        ("@r\n>AC\n+\nIII\n", "in, line 2: not FASTQ: '>AC' is no sequence"),
        ("@r\n#AC\n+\nIII\n", "in, line 2: not FASTQ: '#AC' is no sequence"),
        ("@a\nA\n+\nI\n@r\nAC\nA1\n+\nIIII\n", "in, line 7: record 2 ('r') has '1' at position 4"),
        ("@r\nA@C\n+\nIII\n", "in, line 2: record 1 ('r') has '@' at position 2"),
        (b"@r\nAC\n+\nI\xff\n", "in, line 4: neither FASTA nor one of gz"),
        (b"@r\nAC\n+\nI\0\n@\0\nA\n+\nI\n", "in, line 5: record 2 ('\\x00') has a NUL"),
        (
            gzip.compress(b"@r\nAC\n+\nII\n", mtime=0)[:-9],
            "in, after record 0: cannot be read to its end",
        ),
    ],
)
def test_broken_fastq_is_refused_with_its_line(refusal, data, message):
    assert message.replace("no +", "no line with +") in refusal(data, alphabet=DNA)


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


@pytest.mark.parametrize(
    ("data", "columns", "message"),
    [
        ("a,b\n1,MKT\n", SEQ, "t.csv has no column 'acc'. Its columns are 'a', 'b': name the one"),
        ("acc,b\n1,MKT\n", SEQ, "t.csv has no column 'seq'. Its columns are 'acc', 'b'"),
        ("a,b\n1,MKT\n", Columns(), "with the ids by --id-column (in Python: id_column)"),
        ("id,b\n1,MKT\n", Columns(), "with the sequences by --sequence-column"),
        ("acc,seq,seq\n1,A,A\n", SEQ, "t.csv has two columns 'seq'"),
        ("acc,SEQ\n1,A\n", SEQ, "has no column 'seq'. Its columns are 'acc', 'SEQ'"),
        ("acc,seq\na,MKT\nb\n", SEQ, "t.csv, line 3: 1 columns, but the header has 2."),
        ("acc,seq\na,MKT,x\n", SEQ, "t.csv, line 2: 3 columns, but the header has 2."),
        ('acc,seq\na,"MKT\n', SEQ, "t.csv, line 2: not a row of a table (unexpected end of data)"),
        ("acc,seq\na,MK1\n", SEQ, "t.csv, line 2: record 1 ('a') has '1' at position 3"),
        ('acc,seq\n"a\n",MKT\n\nb,M1\n', SEQ, "t.csv, line 5: record 2 ('b') has '1'"),
        ("acc,seq\na,\n", SEQ, "t.csv, line 2: record 1 ('a') has no sequence"),
        ("acc,seq\na,>MKT\n", SEQ, "t.csv, line 2: '>MKT' is no sequence."),
        ("acc,seq\na,#REF!\n", SEQ, "t.csv, line 2: '#REF!' is no sequence."),
        ("acc,seq\na,;MKT\n", SEQ, "t.csv, line 2: ';MKT' is no sequence."),
        ("acc,seq\n", SEQ, "t.csv is empty: it contains no record."),
        ("", SEQ, "t.csv is empty: it contains no record."),
        (b"acc,seq\na,M\xff\n", SEQ, "t.csv, line 2: neither FASTA nor"),
        (">a\nMKT\n", Columns(), "t.csv has no column 'id'. Its columns are '>a'"),
        ("\t\n\t\n", SEQ, "t.csv is empty"),
        (f"{','.join(map(str, range(30)))}\n", SEQ, "'19' and 10 more: name"),
    ],
)
def test_a_broken_table_is_refused(refusal, data, columns, message):
    assert message in refusal(data, "t.csv", columns=columns)


def test_what_looks_like_a_table_but_is_not_said_to_be_one_is_told_how(refusal):
    assert "name its column of sequences by --sequence-column" in refusal("acc,seq\na,MKT\n")


# --- Parquet ------------------------------------------------------------------------------------


def parquet(tmp_path: Path, **columns: object) -> bytes:
    pq.write_table(pa.table(columns), tmp_path / "made.parquet", row_group_size=2)
    return (tmp_path / "made.parquet").read_bytes()


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_is_known_by_its_content(read, tmp_path, kind):
    sequences = pa.array(["MKT", "gav", "MM*"]).cast(kind)
    data = parquet(tmp_path, x=[1, 2, 3], sequence=sequences, id=[7, 8, 9])
    assert read(data, "in.dat") == [("7", "MKT"), ("8", "GAV"), ("9", "MM")]


def test_ids_and_sequences_may_be_one_column(read, tmp_path):
    data = parquet(tmp_path, seq=["MKT", "GAV"])
    assert read(data, columns=Columns("seq", "seq")) == [("MKT", "MKT"), ("GAV", "GAV")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["x"], "b": ["MKT"]}, "in has no column 'acc'. Its columns are 'a', 'b'"),
        ({"acc": ["x"], "seq": [5]}, "in: column 'seq' holds int64, not texts"),
        ({"acc": ["x"], "seq": [b"MK"]}, "in: column 'seq' holds binary, not texts"),
        ({"acc": ["x", "y"], "seq": ["MK", None]}, "in, row 2: record 2 ('y') has no sequence"),
        ({"acc": list("abc"), "seq": ["MK", "GA", "M1"]}, "in, row 3: record 3 ('c') has '1'"),
        ({"acc": ["x"], "seq": [">MK"]}, "in, row 1: '>MK' is no sequence"),
        ({"acc": pa.array([], pa.string()), "seq": pa.array([], pa.string())}, "in is empty"),
    ],
)
def test_broken_parquet_is_refused_with_its_row(refusal, tmp_path, columns, message):
    assert message in refusal(parquet(tmp_path, **columns), columns=SEQ)


@pytest.mark.parametrize("cut", [4, 60, -1])
def test_parquet_that_is_cut_short_is_refused(refusal, tmp_path, cut):
    data = parquet(tmp_path, id=["x"], sequence=["MKT"])
    assert "in: a damaged Parquet file" in refusal(data[:cut])


# --- BAM and CRAM -------------------------------------------------------------------------------

#: Read name, flag and letters as they are aligned.
READS = [
    ("pair", 0x1 | 0x40, "ACGT"),
    ("pair", 0x1 | 0x80 | 0x10, "AACC"),  # on the other strand
    ("one", 0x4, "GG"),
    ("one", 0x800, "G"),  # a supplementary alignment
    ("one", 0x100, "GG"),  # a secondary one
    ("one", 0x4, "TT"),  # another read of this name
]


def alignments(path: Path, mode: str, reads: list[tuple[str, int, str]]) -> bytes:
    pysam = pytest.importorskip("pysam")
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 100}]}
    options = ["no_ref=1"] if mode == "wc" else None
    with pysam.AlignmentFile(str(path), mode, header=header, format_options=options) as file:
        for name, flag, letters in reads:
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.query_sequence = name, flag, letters
            if not flag & 0x4:
                read.reference_id, read.reference_start = 0, 5
                read.cigarstring = f"{len(letters)}M"
            file.write(read)
    return path.read_bytes()


@pytest.mark.parametrize("mode", ["wb", "wc"], ids=["bam", "cram"])
def test_each_read_of_an_alignment_comes_once_as_it_was_sequenced(read, tmp_path, mode):
    data = alignments(tmp_path / "made", mode, READS)
    expected = [("pair/1", "ACGT"), ("pair/2", "GGTT"), ("one", "GG"), ("one", "TT")]
    assert read(data, "in.dat", alphabet=DNA) == expected


@pytest.mark.parametrize("mode", ["wb", "wc"], ids=["bam", "cram"])
def test_an_alignment_that_is_cut_short_is_refused(refusal, tmp_path, mode):
    data = alignments(tmp_path / "made", mode, READS * 5000)
    text = refusal(data[: len(data) // 2], alphabet=DNA)
    assert "cannot be read to its end" in text
    assert "Is the file complete" in text


def test_a_read_without_letters_and_one_with_strange_ones_are_named(refusal, tmp_path):
    data = alignments(tmp_path / "made", "wb", [("a", 4, "AC"), ("b", 4, "")])
    assert "in, read 2: record 2 ('b') has no sequence" in refusal(data, alphabet=DNA)
    data = alignments(tmp_path / "made", "wb", [("a", 4, "AC"), ("b", 4, "A=C")])
    assert "in, read 2: record 2 ('b') has '=' at position 2" in refusal(data, alphabet=DNA)
