"""The check of an input says what its submission would: same counts, same refusal."""

import json
import random
from pathlib import Path

import pytest

import virnucpro_fleet as vf
from common.errors import UserError
from common.model_specs import MODELS
from producer.input.source import Source
from producer.submission.check import check
from producer.submission.request import make_request
from producer.submission.staging import stage
from producer.submission.submit import Hardware, budget_for
from producer.terminal.input_check import bad_title, histogram, shares, time_shown
from tests.conftest import ROOT
from tests.support.jobs import manifest_of
from tests.support.stores import folder_store

MODEL = "esm2_t6_8M_UR50D"
CASES = ROOT / "tests" / "cases"

BENCH = {
    "machine": "2 NVIDIA H100; torch 2.11",
    "model": MODEL,
    "precision": "fp16",
    "gpus": 2,
    "per_residue": False,
    "packs": {},
    "worker": 200,
}


def staged(path: Path, folder: Path, model: str, **options):
    request = make_request(Source(str(path)), model, **options)
    spec, hardware = MODELS[model], Hardware.of_fleet([], request.rung)
    budget = budget_for(request, spec, hardware, None)
    created = manifest_of([1]).created
    return stage(
        folder_store(folder / "store"),
        request,
        request.fingerprint(),
        budget=budget,
        spec=spec,
        created=lambda: created,
    )


@pytest.mark.parametrize(
    ("name", "model", "options"),
    [
        ("examples/proteins.fasta", MODEL, {}),
        ("tests/cases/many_bad.faa", MODEL, {"invalid": "skip"}),
        ("tests/cases/many_bad.faa", MODEL, {"invalid": "x", "min_length": 43}),
        ("tests/cases/empty_record.faa", MODEL, {"invalid": "skip", "min_length": 22}),
        ("tests/cases/aligned.faa", MODEL, {"gaps": "strip"}),
        ("tests/cases/same_ids.faa", MODEL, {}),
        ("tests/cases/same_sequences.faa", MODEL, {}),
        ("tests/cases/same_sequences.faa", MODEL, {"dedup": False}),
        ("tests/cases/some_dna.faa", MODEL, {}),
        ("tests/cases/long_record.faa.gz", MODEL, {"include": "per_residue"}),
        ("tests/cases/long_contig.fna.gz", "dnabert_s", {"max_residues": 400}),
        ("tests/cases/rna.fna", "dnabert_s", {}),
        ("tests/cases/table.csv", MODEL, {}),
    ],
)
def test_the_counts_are_those_of_the_job(tmp_path, name, model, options):
    report = (manifest := staged(ROOT / name, tmp_path, model, **options)).report
    found = check(ROOT / name, model=model, **options)
    assert found.accepted
    assert found.refusals == ()
    assert found.records == found.rows + report.left_out
    assert (found.rows, found.residues) == (report.records, report.residues)
    assert (found.tokens, found.batches) == (manifest.tokens, manifest.batches)
    for field in ("long", "skipped", "empty", "short", "replaced", "rna", "like_dna", "molecule"):
        assert getattr(found, field) == getattr(report, field)
    assert found.duplicate_ids == report.duplicate_ids
    assert found.computed == sum(manifest.batch_records) == found.rows - report.identical
    assert found.duplicate_sequences >= report.identical


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("many_bad.faa", MODEL),
        ("dna_for_proteins.fna", MODEL),
        ("proteins_for_dna.faa", "dnabert_s"),
        ("nothing.faa", MODEL),
        ("genbank.gb", MODEL),
        ("cut.faa.gz", MODEL),
    ],
)
def test_what_a_submission_refuses_is_not_accepted(tmp_path, name, model):
    with pytest.raises(UserError):
        staged(CASES / name, tmp_path, model)
    found = check(CASES / name, model=model)
    assert not found.accepted
    assert found.bad or found.refusals


def test_the_warnings_of_a_submission_are_given_before_it():
    draw = random.Random(0)
    reads = ["".join(draw.choices("ACGT", k=19)) for _ in range(50)]
    [warning] = check(reads, model=MODEL).warnings
    assert warning.startswith("most records have hardly any letters but A, C, G, T")
    assert check(["MKTAYIAKQR"], model=MODEL).warnings == ()
    [warning] = check(["MKTAYIAKQR"], model=f"random:{MODEL}").warnings
    assert "meaningless" in warning


def test_all_kinds_of_bad_records_are_counted_and_the_first_twenty_listed():
    found = check(
        {"a": "MK", "b": "", "c": "M-K", "d": "MKV", **{f"j{n}": "MJV" for n in range(30)}},
        model=MODEL,
        gaps="error",
        min_length=3,
    )
    assert found.bad == {"letters": 30, "short": 1, "empty": 1, "gaps": 1}
    assert [bad.kind for bad in found.bad_records[:4]] == ["short", "empty", "gaps", "letters"]
    assert len(found.bad_records) == 20
    assert (found.records, found.rows) == (34, 1)
    assert bad_title(found) == "33 bad records, the first 20:"


def test_lengths_are_bins_without_holes():
    found = check(["M", "M" * 30])
    assert [(b.shortest, b.longest, b.records) for b in found.lengths] == [
        *((1, 1, 1), (2, 4, 0), (5, 9, 0), (10, 19, 0), (20, 49, 1)),
    ]
    assert (found.shortest, found.longest, found.mean_length) == (1, 30, 15.5)
    bars = [bar for *_, bar in histogram(found.lengths)]
    assert [len(bar) for bar in bars] == [40, 0, 0, 0, 40]


def test_shares_of_rare_letters_are_not_nothing():
    assert shares({"A": 9999, "C": 1}) == "A 100.0%, C <0.1%"


def test_the_size_of_the_output_follows_what_is_kept():
    mean, per_residue = check(["MKT" * 100]), check(["MKT" * 100], include=("mean", "per_residue"))
    assert per_residue.output_bytes - mean.output_bytes == 300 * 1280 * 2


def test_hours_are_those_of_one_device_of_the_bench(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(BENCH))
    found = check(
        [f"{'M' * 996}{a}{b}" for a in "LAGVSE" for b in "LAGVSE"], model=MODEL, bench=path
    )
    assert found.tokens == 36_000
    assert found.time is not None
    assert (found.time.tokens_per_second, found.time.device_hours) == (100, 0.1)
    assert time_shown(found) == (
        "6 min 00 s",
        "on one device at 100 tokens/s (fp16; 2 NVIDIA H100; torch 2.11)",
    )
    assert check(["MK"], model=f"random:{MODEL}", bench=path).time is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{}", "not what worker bench --json prints"),
        (json.dumps(BENCH | {"worker": 0}), "not what worker bench"),
        (
            json.dumps(BENCH | {"model": "dnabert_s"}),
            "it is of dnabert_s, and the input is for esm2",
        ),
    ],
    ids=["missing", "empty", "no speed", "model"],
)
def test_a_bench_of_something_else_is_refused(tmp_path, text, message):
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        check(["MK"], model=MODEL, bench=path)


def test_it_is_part_of_the_python_api():
    assert vf.check(["MK"], model=MODEL).accepted
    with pytest.raises(UserError, match="min_length"):
        vf.check(["MK"], model=MODEL, min_length=0)


def test_identical_sequences_are_computed_once_unless_each_is_asked_for():
    found = check(["MKT", "MKV", "MKT", "MKT"], model=MODEL)
    each = check(["MKT", "MKV", "MKT", "MKT"], model=MODEL, dedup=False)
    assert (found.rows, found.residues, found.tokens) == (4, 12, 10)
    assert (each.rows, each.residues, each.tokens) == (4, 12, 20)
    assert (found.computed, each.computed) == (2, 4)
    assert found.duplicate_sequences == each.duplicate_sequences == 2
