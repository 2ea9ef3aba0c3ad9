"""The file that a command writes: no other file is harmed, and paths are what they look like."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.embeddings.file import load
from common.job.manifest import read_manifest
from common.ledger.ledger import Ledger
from common.store import open_store
from tests.support.jobs import ok
from tests.support.processes import Fleet, clean_environment, run, run_producer
from tests.support.shards import store_shard

FASTA = ">a\nMKTAYIAK\n"
MODEL = "random:esm2_t6_8M_UR50D"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "q.fasta").write_text(FASTA)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "notes.h5").write_text("notes")
    (tmp_path / "soft.h5").symlink_to("q.fasta")
    os.link(tmp_path / "q.fasta", tmp_path / "hard.h5")
    return tmp_path


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("q.fasta", "is the input itself"),
        ("./q.fasta", "is the input itself"),
        ("soft.h5", "is the input itself"),
        ("hard.h5", "is the input itself"),
        ("notes.txt", "is none of .h5, .hdf5, .hdf, .parquet"),
        ("new", "Name new.h5"),
        ("new.pt", "add --layout esm"),
        ("notes.h5", "or replace it with --overwrite"),
        ("no such/e.h5", "mkdir -p 'no such'"),
        ("store/e.h5", "lies in the folder of the store"),
    ],
)
@pytest.mark.parametrize("local", [True, False], ids=["local", "fleet"])
def test_a_file_that_must_stay_is_named_before_any_work(fleet, folder, output, message, local):
    (folder / "store").mkdir(exist_ok=True)
    before = contents(folder)
    options = ["--local", "--store", "store"] if local else []
    done = fleet.producer(
        *("submit", "q.fasta", "--model", MODEL, "-o", output, *options), cwd=folder
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert contents(folder) == before
    assert not fleet.ledger.redis.keys("*")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--include", "mean", "per_residue", "-o", "e.csv"], "csv has no place for the vectors"),
        (["--include", "mean", "bos", "-o", "e.npy"], "npy holds one kind of vectors"),
        (["-o", "e.h5", "--layout", "parquet"], "layout parquet is named .parquet"),
        (["--layout", "esm"], "--layout=esm is of an output: name one with -o"),
    ],
)
def test_what_a_layout_cannot_hold_is_said_before_any_work(fleet, folder, options, message):
    before = contents(folder)
    done = fleet.producer("submit", "q.fasta", "--model", MODEL, *options, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert contents(folder) == before
    assert not fleet.ledger.redis.keys("*")


def test_the_standard_input_is_not_replaced_by_what_is_made_of_it(folder):
    (folder / "q.h5").write_text(FASTA)
    command = f"producer.cli submit - --local --model {MODEL} -o ./q.h5 --overwrite < q.h5"
    done = run_shell(command, folder)
    assert "q.h5 is the input itself" in done.stderr
    assert (folder / "q.h5").read_text() == FASTA


def run_shell(command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m {command}"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean_environment(),
    )


def submit_locally(*arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return run_producer("submit", *arguments, "--local", "--gpus=none", cwd=cwd)


def test_a_loop_over_samples_of_one_name_loses_none(tiny, tmp_path):
    for sample in ("g1", "g2"):
        (tmp_path / sample).mkdir()
        (tmp_path / sample / "proteins.faa").write_text(f">{sample}\nMKTAYIAK\n")
    first = submit_locally("g1/proteins.faa", "--model", tiny, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    second = submit_locally("g2/proteins.faa", "--model", tiny, cwd=tmp_path)
    assert second.returncode == 2
    assert "proteins.h5 exists and has the embeddings of job proteins-" in second.stderr
    assert "name another output file (-o)" in second.stderr
    assert "Loading the model" not in second.stderr
    assert load(tmp_path / "proteins.h5").ids == ["g1"]
    assert {path.name for path in tmp_path.iterdir()} == {"g1", "g2", "proteins.h5"}


def test_a_default_name_is_that_of_the_input_and_a_given_one_that_of_the_job(tiny, folder):
    q = ("q.fasta", "--model", tiny)
    assert submit_locally(*q, cwd=folder).returncode == 0
    other_options = submit_locally("./q.fasta", "--model", tiny, "--include", "bos", cwd=folder)
    assert other_options.returncode == 0, other_options.stderr
    named = submit_locally(*q, "-o", "q.h5", cwd=folder)
    assert named.returncode == 2
    assert "q.h5 exists and has the embeddings of job q-" in named.stderr
    overwritten = submit_locally(*q, "-o", "q.h5", "--overwrite", cwd=folder)
    assert overwritten.returncode == 0, overwritten.stderr
    assert load(folder / "q.h5").mean.shape == (1, 64)
    assert (folder / "q.fasta").read_text() == FASTA


def finished(fleet: Fleet, fasta: Path) -> str:
    """Submit a job, and finish it without a worker."""
    job = fleet.producer("submit", fasta, "--model", MODEL).stdout.strip()
    store = open_store(fleet.store_url)
    manifest = read_manifest(store, job)
    store_shard(store, manifest, 0)
    Ledger(fleet.ledger.redis).results.complete(ok(manifest.batch(0)))
    return job


def test_fetch_replaces_its_own_file_and_another_only_if_asked(fleet, folder):
    job = finished(fleet, folder / "q.fasta")
    for _ in range(2):
        done = fleet.producer("fetch", job, "-o", "e.h5", cwd=folder)
        assert done.returncode == 0, done.stderr
    before = contents(folder)
    for output in ("soft.h5", "hard.h5", "notes.txt", "notes.h5", "no/e.h5"):
        done = fleet.producer("fetch", job, "-o", output, cwd=folder)
        assert done.returncode == 2, done.stderr
    assert contents(folder) == before
    assert fleet.producer("fetch", job, "-o", "notes.h5", "--overwrite", cwd=folder).returncode == 0
    assert load(folder / "notes.h5").ids == ["a"]


def test_a_repeated_submit_writes_its_file_again(fleet, folder):
    finished(fleet, folder / "q.fasta")
    for _ in range(2):
        done = fleet.producer("submit", "q.fasta", "--model", MODEL, "-o", "e.h5", cwd=folder)
        assert done.returncode == 0, done.stderr


def test_the_home_folder_is_known_in_every_path(fleet, folder):
    environment = {**fleet.environment, "HOME": str(folder), "VIRNUCPRO_STORE": "~/store"}
    job = finished(fleet, folder / "q.fasta")
    options = {"environment": environment, "cwd": folder}
    for command in (
        ["submit", "~/q.fasta", "--model", MODEL, "--output=~/1.h5"],
        ["fetch", job, "--output=~/2.h5"],
        ["fetch", job, "--output=~/3.h5", "--store=~/store"],
        ["fetch", job, "--output=~/4.h5", "--store=file://~/store"],
    ):
        done = run_producer(*command, **options)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.glob("?.h5")} == {"1.h5", "2.h5", "3.h5", "4.h5"}
    assert not (folder / "~").exists()


@pytest.mark.parametrize(
    ("command", "option"), [("bench", "--trace"), ("validate", "--picture")], ids=lambda v: v
)
def test_a_trace_and_a_picture_replace_no_other_file(tmp_path, command, option):
    other = tmp_path / "photo.png"
    other.write_bytes(b"\x89PNG of somebody")
    for output, message in (
        (other, f"{option} {other} exists, and this command did not write it"),
        ("no such/c.png", "mkdir -p 'no such'"),
        ("~nobody-at-all/c.png", "the home folder of '~nobody-at-all' is not known"),
    ):
        done = run("workers.cli", command, "--model", MODEL, option, output, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
    assert other.read_bytes() == b"\x89PNG of somebody"
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
