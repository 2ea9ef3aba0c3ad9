"""No row is lost: rows that come out and rows that are reported are the rows that went in.

The records here are of known kinds, so that a test knows what is to become of each of them.
"""

import csv
import gzip
from collections import Counter
from collections.abc import Callable, Sequence
from io import BytesIO, StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import DNA, PROTEIN
from common.errors import InputError
from producer.input import blocks, fastq, formats, tables
from producer.input.reader import Reader
from producer.input.source import Source
from producer.input.sources import together
from tests.fuzz.fuzzing import fuzz
from workers.engine.windows import cut_windows, join_windows, windows

LONGEST = 50

#: Kinds of records, with letters that a model of proteins is given, and one of DNA.
KINDS = {
    "good": ("MKTAYI", "ACGTAC"),
    "soft": ("mktayi*", "acgtnn"),
    "unknown": ("MKJAYI", "ACJTAC"),
    "digit": ("MK1AYI", "AC1TAC"),
    "gap": ("MK-AYI", "AC-TAC"),
    "only gaps": ("-.-", "---"),
    "empty": ("", ""),
    "short": ("MK", "AC"),
    "long": ("MKTAYIL" * 8, "ACGT" * 14),
}

OPTIONS = st.fixed_dictionaries(
    {
        "unknown": st.sampled_from(["error", "x", "skip"]),
        "gaps": st.sampled_from(["keep", "strip", "error"]),
        "empty": st.sampled_from(["error", "skip"]),
        "long": st.sampled_from(["error", "truncate", "window"]),
        "short": st.sampled_from(["error", "skip"]),
        "min_length": st.sampled_from([1, 4]),
    }
)


def fate(kind: str, options: dict[str, Any], *, dna: bool) -> str:
    """Return what is to become of a record: kept, bad, or the name of the count that has it."""
    if kind in ("empty", "only gaps"):
        return "empty" if options["empty"] == "skip" else "bad"
    if kind == "gap" and options["gaps"] == "error":
        return "bad"
    if kind in ("unknown", "digit") or (kind == "gap" and dna and options["gaps"] == "keep"):
        if options["unknown"] == "skip":
            return "skipped"
        return "kept" if options["unknown"] == "x" and kind != "digit" else "bad"
    if kind == "short" and options["min_length"] > 2:
        return "short" if options["short"] == "skip" else "bad"
    return "bad" if kind == "long" and options["long"] == "error" else "kept"


# --- the same records in each format --------------------------------------------------------------

Pairs = Sequence[tuple[str, str]]


def as_fasta(pairs: Pairs) -> bytes:
    return "".join(f">{id_} x\n{letters}\n" for id_, letters in pairs).encode()


def as_wrapped_fasta(pairs: Pairs) -> bytes:
    """Return FASTA with Windows line ends, three letters in a line, comments and blank lines."""
    lines = ["; all of them", ""]
    for id_, letters in pairs:
        parts = [letters[start : start + 3] for start in range(0, len(letters), 3)]
        lines += [f"> {id_}", *parts, "# checked", ""]
    return "\r\n".join(lines).encode()


def as_fastq(pairs: Pairs) -> bytes:
    return "".join(
        f"@{id_}\n{letters}\n+\n{'@' * len(letters)}\n" for id_, letters in pairs
    ).encode()


def as_csv(pairs: Pairs, delimiter: str = ",") -> bytes:
    text = StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["sequence", "note", "id"])
    writer.writerows([letters, 'a "b"\nc', id_] for id_, letters in pairs)
    return text.getvalue().encode()


def as_tsv(pairs: Pairs) -> bytes:
    return as_csv(pairs, "\t")


def as_parquet(pairs: Pairs) -> bytes:
    file = BytesIO()
    ids, sequences = zip(*pairs, strict=True)
    pq.write_table(pa.table({"id": ids, "sequence": sequences}), file, row_group_size=3)
    return file.getvalue()


FORMATS: dict[str, Callable[[Pairs], bytes]] = {
    ".fa": as_fasta,
    ".wrapped.fa": as_wrapped_fasta,
    ".fq": as_fastq,
    ".csv": as_csv,
    ".tsv": as_tsv,
    ".parquet": as_parquet,
}

FILES = st.lists(
    st.tuples(
        st.sampled_from(list(FORMATS)),
        st.booleans(),
        st.lists(st.sampled_from([*KINDS, "good", "good"]), min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=3,
)


def write_files(
    folder: Path, files: Sequence[tuple[str, bool, list[str]]], *, dna: bool
) -> list[Source]:
    """Write files of some kinds of records, whose ids are their rows; some are compressed."""
    sources, row = [], 0
    for number, (suffix, packed, kinds) in enumerate(files):
        data = FORMATS[suffix]([(f"r{row + n}", KINDS[kind][dna]) for n, kind in enumerate(kinds)])
        path = folder / f"{number}{suffix}"
        path.write_bytes(gzip.compress(data) if packed and suffix != ".parquet" else data)
        sources.append(Source(str(path)))
        row += len(kinds)
    return sources


@fuzz()
@given(
    files=FILES, options=OPTIONS, dna=st.booleans(), read_bytes=st.sampled_from([8, 31, 1 << 16])
)
def test_every_row_is_given_out_or_reported(files, options, dna, read_bytes, tmp_path):
    kinds = [kind for _, _, some in files for kind in some]
    fates = [fate(kind, options, dna=dna) for kind in kinds]
    expected, sizes = Counter(fates), [len(some) for _, _, some in files]
    reader = Reader(
        together(write_files(tmp_path, files, dna=dna)),
        alphabet=DNA if dna else PROTEIN,
        molecule="dna" if dna else "protein",
        max_residues=LONGEST,
        **options,
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in (blocks, fastq, formats, tables):
            patch.setattr(module, "READ_BYTES", read_bytes)
        if expected["bad"] or not expected["kept"]:
            with pytest.raises(InputError):
                list(reader)
        else:
            rows = [row for row, name in enumerate(fates) if name == "kept"]
            assert [(r.row, r.id) for r in reader] == [(row, f"r{row}") for row in rows]
    assert (reader.read, reader.records_of) == (len(kinds), sizes)
    assert reader.problems.count == expected["bad"]
    assert {name: getattr(reader, name) for name in ("skipped", "empty", "short")} == {
        name: expected[name] for name in ("skipped", "empty", "short")
    }
    assert reader.long_records == kinds.count("long")


# --- windows --------------------------------------------------------------------------------------


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Return lengths of records, the size of a window, and the overlap of neighbours."""
    size = draw(st.integers(1, 40))
    lengths = draw(st.lists(st.integers(1, 200), min_size=1, max_size=8))
    return lengths, size, draw(st.integers(0, size - 1))


@fuzz()
@given(cut=cuts(), seed=st.integers(0, 2**32 - 1))
def test_windows_have_every_letter_and_each_record_gets_one_row_of_them(cut, seed):
    lengths, size, overlap = cut
    random = np.random.default_rng(seed)
    records = ["".join(random.choice(list("ACDEFGHIK"), length)) for length in lengths]
    values = [random.normal(size=(length, 3)) for length in lengths]
    pieces, firsts = cut_windows(records, size, overlap)
    assert len(firsts) == len(records)
    of_records = [windows(length, size, overlap) for length in lengths]
    for record, places, first in zip(records, of_records, firsts, strict=True):
        assert pieces[first : first + len(places)] == [record[a:b] for a, b in places]
        assert (places[0][0], places[-1][1]) == (0, len(record))
        assert all(0 < b - a <= size for a, b in places)
        assert all(before[1] - after[0] >= overlap for before, after in pairwise(places))
    assert len(pieces) == sum(map(len, of_records))
    parts = [v[a:b] for v, places in zip(values, of_records, strict=True) for a, b in places]
    found = join_windows(
        {
            name: np.array([pool(part, axis=0) for part in parts], np.float32)
            for name, pool in (("mean", np.mean), ("max", np.max), ("std", np.std))
        },
        np.array(list(map(len, parts)), np.float32),
        firsts,
    )
    ends = [*firsts[1:], len(parts)]
    tokens = [np.concatenate(parts[a:b]) for a, b in zip(firsts, ends, strict=True)]
    for name, pool in (("mean", np.mean), ("max", np.max), ("std", np.std)):
        expected = [pool(some, axis=0) for some in tokens]
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)
