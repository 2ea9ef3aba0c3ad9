"""Several models over one input, on a real fleet: one job for whoever looks at it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import virnucpro_fleet as vf
from common.errors import UserError
from tests.support.contigs import coding, write_contigs
from tests.support.dnabert import random_checkpoint, save_checkpoint
from tests.support.fixtures import TINY
from tests.support.overflow_dna import DNA_SPEC
from tests.support.processes import run_producer
from tests.support.results import attributes, load


@pytest.fixture(scope="module")
def dnabert(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "dnabert"
    return save_checkpoint(DNA_SPEC, random_checkpoint(DNA_SPEC), folder)


@pytest.fixture(scope="module")
def contigs(tmp_path_factory) -> Path:
    return write_contigs(tmp_path_factory.mktemp("in") / "contigs.fna", 20)


@pytest.fixture
def submitted(fleet, contigs, dnabert, tiny, tmp_path) -> str:
    """Return the name of a joint job that is queued, with no worker yet."""
    done = fleet.producer(
        *("submit", contigs, "--translate", "six-frame", "--chunk", 500),
        *("--model", tiny, "--model", dnabert, "--precision", "fp32"),
        *("--left-out", tmp_path / "left_out.tsv"),
    )
    assert done.returncode == 0, done.stderr
    assert "Translated 20 contigs" in done.stderr
    left_out = (tmp_path / "left_out.tsv").read_text().splitlines()
    assert left_out[0].split("\t")[-1] == "chunks_without_frame"
    assert len(left_out) > 10
    return done.stdout.strip()


def test_a_joint_job_is_waited_for_verified_and_fetched_by_one_name(
    fleet, submitted, contigs, dnabert, tiny, tmp_path
):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    early = fleet.producer("fetch", submitted, "-o", tmp_path / "e.h5")
    assert early.returncode == 3
    assert "have no output yet" in early.stderr
    with (
        fleet.workers(tiny, folders[0], "--precision=fp32"),
        fleet.workers(dnabert, folders[1], "--precision=fp32"),
    ):
        followed = fleet.producer("fetch", submitted, "-o", tmp_path / "f.h5", "--follow")
        assert followed.returncode == 0, followed.stderr
        assert fleet.producer("watch", submitted).returncode == 0
    assert fleet.producer("verify", submitted).returncode == 0
    seen = json.loads(fleet.producer("status", submitted, "--json").stdout)
    assert seen["job"] == submitted
    assert [job["state"] for job in seen["jobs"]] == ["finished", "finished"]
    shown = fleet.producer("status", submitted).stdout
    assert all(job["job"] in shown for job in seen["jobs"])

    found = {name: load(tmp_path / "f.h5", group=name) for name in ("tiny.pt", "dnabert")}
    one, other = found.values()
    assert one["mean"].shape == (len(one["ids"]), TINY.dim)
    assert other["mean"].shape == (len(one["ids"]), DNA_SPEC.dim)
    for name in ("ids", "rows"):
        np.testing.assert_array_equal(one[name], other[name])
    facts = attributes(tmp_path / "f.h5")
    assert facts["job"] == submitted
    assert facts["frames_contigs"] == 20
    assert facts["frames_frames"] == len(one["ids"])
    assert facts["frames_contigs_without_frame"] > 0

    # The same request again is the same job, and computes nothing.
    again = fleet.producer(
        *("submit", contigs, "--translate", "six-frame", "--chunk", 500),
        *("--model", tiny, "--model", dnabert, "--precision", "fp32", "-o", tmp_path / "f.h5"),
    )
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("This input was submitted before") == 2
    kept = fleet.producer("delete", submitted, "--yes")
    assert kept.returncode == 0, kept.stderr
    assert not list((tmp_path / "store").rglob("*.json"))
    gone = fleet.producer("status", submitted)
    assert gone.returncode == 2
    assert "has no job" in gone.stderr


def test_a_joint_job_is_cancelled_resumed_and_given_a_priority_by_its_name(fleet, submitted):
    def states() -> set[str]:
        seen = json.loads(fleet.producer("status", submitted, "--json").stdout)
        return {job["state"] for job in seen["jobs"]}

    assert states() == {"queued"}
    assert fleet.producer("cancel", submitted).returncode == 0
    assert states() == {"cancelled"}
    assert fleet.producer("resume", submitted).returncode == 0
    assert states() == {"queued"}
    assert fleet.producer("set-priority", submitted, "high").returncode == 0
    seen = json.loads(fleet.producer("status", submitted, "--json").stdout)
    assert {job["priority"] for job in seen["jobs"]} == {"high"}
    refused = fleet.producer("delete", submitted, "--yes")
    assert refused.returncode == 2
    assert "neither finished nor cancelled" in refused.stderr
    refused = fleet.producer("report", submitted, "-o", "r.html")
    assert "has several models. Name the job of one" in refused.stderr


def test_status_and_cancel_find_a_joint_job_without_its_store(fleet, submitted):
    environment = {k: v for k, v in fleet.environment.items() if k != "VIRNUCPRO_STORE"}
    seen = run_producer("status", submitted, "--json", environment=environment)
    assert seen.returncode == 0, seen.stderr
    assert run_producer("cancel", submitted, environment=environment).returncode == 0
    unknown = run_producer("status", "x-0123456789ab-all", environment=environment)
    assert "Redis knows no job" in unknown.stderr


def test_two_models_of_proteins_read_the_records_themselves(tmp_path, examples):
    done = run_producer(
        *("submit", examples, "--local", "--gpus", "none", "-o", tmp_path / "e.h5"),
        *("--model", "random:esm2_t6_8M_UR50D", "--model", "random:esm2_t12_35M_UR50D"),
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(UserError, match="name one of them, as model='random:esm2_t6_8M_UR50D'"):
        vf.load(tmp_path / "e.h5")
    with vf.load(tmp_path / "e.h5", model="random:esm2_t12_35M_UR50D") as found:
        assert found.mean.shape == (len(found), 480)
    vf.export(tmp_path / "e.h5", tmp_path / "e.npy", model="random:esm2_t6_8M_UR50D")
    assert np.load(tmp_path / "e.npy").shape[1] == 320
    with h5py.File(tmp_path / "e.h5") as file:
        assert list(file.attrs["models"]) == list(file)[::-1]
    assert not (tmp_path / "e.h5.parts").exists()


def refusal(*options: object) -> str:
    done = run_producer("submit", *options)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_what_several_models_cannot_be_is_said(tmp_path, contigs):
    both = ("--model", "random:esm2_t6_8M_UR50D", "--model", "random:dnabert_s")
    local = ("--local", "--translate", "six-frame")
    assert "several models have one HDF5 file" in refusal(
        contigs, *both, *local, "-o", tmp_path / "e.npz"
    )
    assert "a model is given twice" in refusal(contigs, *both[:2], *both[:2], *local)
    assert "name a file, not a stream" in refusal("-", *both, "--local")
    assert "--chunk is of a translation" in refusal(contigs, *both, "--local", "--chunk", 300)
    assert "this command takes one model" in run_producer("check", contigs, *both).stderr
    without = tmp_path / "stops.fna"
    without.write_text(f">a\n{'TTAACTAACTAA' * 60}\n")
    assert "none of the 2 chunks of 1 contigs has a frame" in refusal(without, *both, *local)


def test_frames_of_one_model_are_an_ordinary_job(tmp_path):
    import random

    path = tmp_path / "c.fna"
    path.write_text(f">c\n{coding(400, random.Random(1))}\n")
    done = run_producer(
        *("submit", path, "--local", "--gpus", "none", "--translate", "orfs", "-o"),
        *(tmp_path / "e.h5", "--model", "random:esm2_t6_8M_UR50D", "--min-frame", 20),
    )
    assert done.returncode == 0, done.stderr
    found = load(tmp_path / "e.h5")
    assert all(b"_" in id_ for id_ in found["ids"])
    assert (found["lengths"] >= 20).all()
