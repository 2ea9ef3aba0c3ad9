"""``producer check`` as a user runs it: without Redis and without a store."""

import json
import os

import pytest

from tests.conftest import ROOT
from tests.support.processes import run_producer

CASES = ROOT / "tests" / "cases"

#: An environment in which nothing answers.
NOTHING = {
    **{name: value for name, value in os.environ.items() if not name.startswith("VIRNUCPRO_")},
    "VIRNUCPRO_BROKER_URL": "redis://127.0.0.1:1/0",
}


def check(*arguments: object, **options):
    return run_producer("check", *arguments, environment=NOTHING, **options)


def test_a_good_input_is_described_and_accepted():
    done = check(ROOT / "examples" / "proteins.fasta", "--model", "esm2_t6_8M_UR50D")
    assert done.returncode == 0, done.stderr
    assert "producer submit would accept this input. Nothing was queued." in done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(line.startswith("records 25 in 1 source, for esm2_t6_8M_UR50D") for line in lines)
    assert any(line.startswith("long 3 records longer than 1,022, truncated: ") for line in lines)
    assert any(line.startswith("100 to 199 14 ") for line in lines)
    assert "computing unknown give --bench FILE, of worker bench --json" in lines


def test_bad_records_of_all_kinds_are_counted_in_one_run(tmp_path):
    (tmp_path / "in.fa").write_text(">a\nMKT\nMJ\n>b\n>c\nMKV\n>\x1b[31m\nM?\n")
    done = check("in.fa", cwd=tmp_path)
    assert done.returncode == 2
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "to embed 1 read as protein" in lines
    assert "bad 2 with letters that the model does not have" in lines
    assert "bad 1 without a sequence" in lines
    assert "3 bad records:" in lines
    assert any(line.startswith("in.fa, line 3: record 1 ('a') has 'J'") for line in lines)
    assert "\x1b" not in done.stdout
    assert "producer submit would refuse this input. Nothing was queued." in done.stderr


@pytest.mark.parametrize(
    ("file", "code"), [("windows.faa", 0), ("many_bad.faa", 2), ("dna_for_proteins.fna", 2)]
)
def test_json_is_one_object_on_one_line(file, code):
    done = check(CASES / file, "--json")
    assert done.returncode == code
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["accepted"] == (code == 0)
    assert found["records"] == found["rows"] + sum(found["bad"].values())


def test_it_reads_what_submit_reads(tmp_path):
    (tmp_path / "a.csv").write_text("acc,seq\na,MKT\n")
    (tmp_path / "list.txt").write_text("a.csv\n")
    options = ["--from", "list.txt", "--sequence-column", "seq", "--id-column", "acc", "--json"]
    more = ["--sequence", "MKV", "--include", "mean", "bos", "--layers", "-1,3", "s.fa"]
    (tmp_path / "s.fa").write_text(">s\nMKL\n")
    done = check(*options, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sources"] == [
        {"name": name, "records": 1} for name in ("s.fa", "a.csv", "sequences")
    ]


def test_wrong_options_are_refused_as_by_submit(tmp_path):
    done = check("--nope", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Unknown option: --nope. producer check --help lists all" in done.stderr
    done = check("--sequence", "MK", "--layers", "99")
    assert done.returncode == 2
    assert "Layer 99" in done.stderr
