"""Odd and broken inputs: what comes of each is in the tables of ``tests/cases``, to the letter."""

from pathlib import Path
from typing import Any

import pytest

from common.alphabet import DNA, PROTEIN
from common.errors import UserError
from common.store.bucket import S3Store
from producer.input.reader import Reader
from producer.submission.records import as_sources
from tests.cases import (
    aligned,
    fasta,
    fastq,
    foreign,
    letters,
    packed,
    parquet,
    places,
    tables,
)
from tests.cases.case import Case, content, without_library
from tests.support.fixtures import BUCKET

CASES: list[Case] = [
    *(*fasta.CASES, *letters.CASES, *foreign.CASES, *fastq.CASES, *tables.CASES),
    *(*parquet.CASES, *aligned.CASES, *packed.CASES, *places.CASES),
]
OPTIONS: dict[str, Any] = {"unknown": "error", "long": "truncate", "max_residues": 10_000}

#: What the reader counts besides the records.
COUNTS = ("long_records", "skipped", "empty", "replaced", "gapped", "stripped", "rna")


def outcome(case: Case) -> tuple[list[tuple[int, str, str]], dict[str, int]]:
    """Return the records of a case's files in this folder, and the counts that are not 0."""
    named = case.named or (() if case.lists else tuple(case.files))
    with as_sources(named, lists=case.lists) as source:
        alphabet = DNA if case.dna else PROTEIN
        reader = Reader(source, alphabet=alphabet, **(OPTIONS | case.options))
        records = [(record.row, record.header, record.residues) for record in reader]
        counts = {name: getattr(reader, name) for name in COUNTS}
        counts["duplicates"] = reader.duplicate_ids()
    assert len(records) + reader.skipped + reader.empty == reader.read
    return records, {name: number for name, number in counts.items() if number}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_odd_input_is_read_or_refused_as_the_table_says(
    here: Path, case: Case, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.objects:
        for variable, value in request.getfixturevalue("s3").environment().items():
            monkeypatch.setenv(variable, value)
        bucket = S3Store(BUCKET, "")
        for key, data in case.objects.items():
            bucket.put(key, content(data))
    for name, data in case.files.items():
        path = here / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content(data))
    if case.refused is None:
        rows = range(len(case.read)) if case.rows is None else case.rows
        expected = [(row, *record) for row, record in zip(rows, case.read, strict=True)]
        assert outcome(case) == (expected, dict(case.counts))
        return
    with pytest.raises(UserError) as caught:
        outcome(case)
    assert without_library(str(caught.value)) == case.refused.replace("{here}", str(here))


def test_there_are_hundreds_of_cases_of_all_formats_and_each_has_a_name_of_its_own() -> None:
    assert len(CASES) >= 200
    assert len({case.id for case in CASES}) == len(CASES)
