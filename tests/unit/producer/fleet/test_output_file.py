"""The file for a job's embeddings: no other file is harmed by it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from common.errors import UserError
from common.job.manifest import Manifest, write_manifest
from common.job.records import Record
from common.model_digest import model_digest
from common.model_source import ModelSource
from common.paths import user_path
from common.store import FileStore
from producer.cli.submit import output_file
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.fleet.output_file import Origin, OutputFile, sources_of
from producer.local.run import check_kept, local_folder, tidy
from producer.output import fetch as fetching
from producer.submission.records import as_source
from producer.submission.request import Request, make_request
from producer.submission.same_weights import job_names
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs, store_shard, write_shard
from tests.support.stores import folder_store
from tests.support.woken import once_before

MANIFEST = manifest_of([1]).model_copy(update={"input_fingerprint": "f"})


def done_job(store: FileStore, manifest: Manifest = MANIFEST) -> Job:
    """Return a finished job whose shards no worker made."""
    store_inputs(store, manifest, [Record(0, "a", "MK")])
    write_manifest(store, manifest)
    store_shard(store, manifest, 0)
    return Fleet(store=store.url).job(manifest.job)


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    monkeypatch.chdir(tmp_path)
    return done_job(folder_store(tmp_path / "store"))


def named(manifest: Manifest, job: str) -> Manifest:
    return manifest.model_copy(update={"job": job})


def refusal(job: Job, path: str | Path, **options: bool) -> str:
    """Return the message of a fetch that is refused, and leaves everything as it was."""
    before = contents(Path.cwd())
    with pytest.raises(UserError) as caught:
        job.fetch(path, **options)
    assert contents(Path.cwd()) == before
    return str(caught.value)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what the embeddings are made from ----------------------------------------------------------


SPELLINGS: dict[str, Callable[[Path], str]] = {
    "plain": lambda file: file.name,
    "dot": lambda file: f"./{file.name}",
    "dots": lambda file: f"../{file.parent.name}/{file.name}",
    "absolute": str,
    "symbolic link": lambda file: linked(file, os.symlink),
    "hard link": lambda file: linked(file, os.link),
}


def linked(file: Path, link: Callable[[Path, Path], None]) -> str:
    link(file, file.with_name("link.h5"))
    return "link.h5"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["in.fa", "in.h5"])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_the_input_is_never_replaced_however_it_is_spelled(
    job, tmp_path, spelling, name, overwrite
):
    file = tmp_path / name
    file.write_text(">a\nMK\n")
    vars(job)["manifest"] = job.manifest.model_copy(update={"input": name})
    message = refusal(job, spelling(file), overwrite=overwrite)
    assert "is the input itself" in message
    assert "name another output file (-o)" in message


def test_weights_are_never_replaced_and_their_folder_gets_no_file(job, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "tf_model.h5").write_text("weights")
    (tmp_path / "model.pt").write_text("weights")
    for model, output in (
        (weights, "weights/tf_model.h5"),
        (weights, "weights/new.h5"),
        (tmp_path / "model.pt", "./model.pt"),
    ):
        vars(job)["manifest"] = job.manifest.model_copy(update={"model": str(model)})
        assert "the model's weights" in refusal(job, output, overwrite=True)


def test_the_store_gets_no_output(job):
    for output in (f"store/{job.name}/output/0000000.fp16.h5", "store/e.h5"):
        assert "lies in the folder of the store" in refusal(job, output, overwrite=True)


def test_an_input_that_is_called_like_a_folder_by_chance_hinders_nothing(job, tmp_path):
    (tmp_path / "records").mkdir()
    vars(job)["manifest"] = job.manifest.model_copy(update={"input": "records"})
    assert job.fetch("records/e.h5").rows == 1


# --- where a file may be ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["e.pt", "e.txt", "e.fasta", "e", ".h5", "e.h5.gz"])
def test_a_suffix_that_is_not_written_is_refused_with_those_that_are(job, name):
    message = refusal(job, name, overwrite=True)
    assert "is none of .h5, .hdf5, .hdf, .parquet, .npz, .npy, .csv, .tsv, .safetensors" in message
    assert "--layout esm" in message


@pytest.mark.parametrize("name", ["e.h5", "e.hdf5", "e.hdf", "E.H5", "a.b.h5"])
def test_the_usual_suffixes_of_hdf5_are_written(job, name):
    assert job.fetch(name).path == Path(name)


def test_a_missing_folder_is_not_made(job):
    assert refusal(job, "a b/c/e.h5").endswith("mkdir -p 'a b/c'")


@pytest.mark.parametrize("url", ["gs://bucket/e.h5", "https://host/e.h5", "file://host/e.h5"])
def test_a_url_is_not_taken_for_a_folder(job, url):
    assert "is a URL: name a file on this machine" in refusal(job, url)


def test_the_url_of_a_file_is_a_path(job, tmp_path):
    assert job.fetch(f"file://{tmp_path}/e.h5").path == tmp_path / "e.h5"


@pytest.mark.parametrize("name", ["x" * 300 + ".h5", "loop/e.h5", "nul\0.h5"])
def test_a_name_that_cannot_be_is_an_error_of_the_user(job, name):
    Path("loop").symlink_to("loop")
    with pytest.raises(UserError):
        job.fetch(name)


# --- what may be replaced -----------------------------------------------------------------------


def test_fetching_twice_to_the_same_file_goes_on(job):
    assert job.fetch("e.h5") == job.fetch("e.h5")


def test_a_file_that_an_earlier_version_wrote_is_known_by_its_job(job):
    job.fetch("e.h5")
    with h5py.File("e.h5", "a") as file:
        del file.attrs["input_fingerprint"]
    assert job.fetch("e.h5").rows == 1


def other_job(job: Job) -> None:
    done_job(job.fleet.store, named(MANIFEST, "other-0123456789ab")).fetch("e.h5")


def with_labels(job: Job) -> None:
    job.fetch("e.h5")
    with h5py.File("e.h5", "a") as file:
        file["labels"] = [1]


def without_job(_job: Job) -> None:
    write_shard(Path("e.h5"), MANIFEST.form, 4)


def cut_short(job: Job) -> None:
    job.fetch("e.h5")
    Path("e.h5").write_bytes(Path("e.h5").read_bytes()[:500])


FOREIGN: dict[str, Callable[[Job], object]] = {
    "text": lambda _job: Path("e.h5").write_text("notes"),
    "empty": lambda _job: Path("e.h5").touch(),
    "another job": other_job,
    "labels of its owner": with_labels,
    "another program's": without_job,
    "damaged": cut_short,
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_any_other_file_is_replaced_only_if_that_is_asked_for(job, make):
    make(job)
    message = refusal(job, "e.h5")
    assert message.startswith("e.h5 exists and ")
    assert "name another output file (-o), or replace it with --overwrite" in message
    assert job.fetch("e.h5", overwrite=True).rows == 1


def test_a_link_that_leads_nowhere_is_not_replaced(job):
    Path("e.h5").symlink_to("nowhere.h5")
    assert "e.h5 exists" in refusal(job, "e.h5")
    assert Path("e.h5").is_symlink()


def test_a_file_that_appears_during_the_work_is_not_replaced(job, monkeypatch):
    merged = fetching.merged

    def merged_meanwhile(*arguments):
        Path("e.h5").write_text("notes")
        return merged(*arguments)

    monkeypatch.setattr(fetching, "merged", merged_meanwhile)
    with pytest.raises(UserError, match=r"e.h5 exists and is another file"):
        job.fetch("e.h5")
    assert Path("e.h5").read_text() == "notes"
    assert not list(Path().glob(".e.h5*"))


def requested(source: str, model: str = "esm2_t6_8M_UR50D", **options: bool) -> Request:
    with as_source(source) as opened:
        return make_request(opened, model, **options)


def origin_of_request(request: Request) -> Origin:
    [job] = job_names(request, None)
    return Origin(job, request.source.fingerprint)


@pytest.mark.parametrize("path", [None, Path("e.h5")], ids=["default name", "given name"])
def test_a_request_knows_the_files_that_it_may_replace(tmp_path, path):
    for name, letters in (("p.fasta", "MK"), ("same.fasta", "MK"), ("other.fasta", "GA")):
        (tmp_path / name).write_text(f">a\n{letters}\n")
    mine = requested(str(tmp_path / "p.fasta"))
    output = output_file(mine, path, None, overwrite=False)
    assert output.path == (path or Path("p.h5"))
    for request, is_default in (
        (requested(str(tmp_path / "p.fasta"), new=True), True),
        (requested(str(tmp_path / "same.fasta")), True),
        (requested(str(tmp_path / "other.fasta")), False),
    ):
        is_ours = output.is_ours(origin_of_request(request))
        assert is_ours == (is_default and path is None)
    [job] = job_names(requested(str(tmp_path / "p.fasta")), None)
    assert output.is_ours(Origin(job))  # as an earlier version wrote it


def test_a_default_name_that_begins_like_a_home_folder_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("~x.fasta").write_text(">a\nMK\n")
    output = output_file(requested("./~x.fasta"), None, None, overwrite=False)
    assert user_path(output.path) == tmp_path / "~x.h5"


def test_two_pipes_are_two_inputs_though_both_are_called_stdin():
    one, other = requested("-"), requested("-")
    output = output_file(one, None, None, overwrite=False)
    assert output.path == Path("stdin.h5")
    assert output.is_ours(origin_of_request(one))
    assert not output.is_ours(origin_of_request(other))


def test_a_file_of_other_weights_under_the_same_path_is_of_another_job(tmp_path, tiny):
    weights, fasta = shutil.copy(tiny, tmp_path / "tiny.pt"), tmp_path / "p.fasta"
    fasta.write_text(">a\nMK\n")
    request = requested(str(fasta), str(weights))
    given, by_input = (
        output_file(request, path, None, overwrite=False) for path in (Path("e.h5"), None)
    )
    now = model_digest([weights])
    usual, by_weights = job_names(request, now)
    for origin, is_ours in (
        (Origin(usual, "", now), True),
        (Origin(usual), True),
        (Origin(by_weights, "", now), True),
        (Origin(usual, request.source.fingerprint, "earlier"), False),
    ):
        assert given.is_ours(origin) == is_ours
    assert by_input.is_ours(Origin(usual, request.source.fingerprint, "earlier"))


def test_fetch_takes_a_file_of_other_weights_for_another_job_s(job):
    for digest in ("earlier", "now"):
        vars(job)["manifest"] = job.manifest.model_copy(update={"model_digest": digest})
        if digest == "earlier":
            job.fetch("e.h5")
    assert "e.h5 exists and has the embeddings of job" in refusal(job, "e.h5")


# --- an interrupted run -------------------------------------------------------------------------


def test_finished_batches_of_another_interrupted_run_stay(tmp_path):
    output = OutputFile(
        path=tmp_path / "p.h5",
        is_ours=lambda origin: origin.input_fingerprint == "f" or origin.job == "mine",
        sources=sources_of(["p.fasta"], [ModelSource("m")], None),
    )
    store = folder_store(local_folder(output.path) / "store")
    begun = named(MANIFEST, "begun").model_copy(update={"input_fingerprint": "g"})
    write_manifest(store, begun)  # nothing of it is computed yet
    done_job(store, named(begun, "mine"))
    check_kept(output, store)
    # Another job of the same input has other options or weights: its batches are work of their own.
    for other in (named(begun, "other"), named(MANIFEST, "of-the-same-input")):
        done_job(store, other)
        with pytest.raises(UserError, match=rf"an interrupted run of in.fa \(job {other.job}"):
            check_kept(output, store)
        store.delete(f"{other.job}/")


def test_finished_batches_of_the_same_job_with_other_weights_stay(tmp_path):
    output = OutputFile(
        path=tmp_path / "p.h5",
        is_ours=lambda origin: origin.is_of("mine", "now"),
        sources=sources_of(["p.fasta"], [ModelSource("m")], None),
    )
    store = folder_store(local_folder(output.path) / "store")
    mine = named(MANIFEST, "mine")
    done_job(store, mine.model_copy(update={"model_digest": "now"}))
    check_kept(output, store)
    done_job(store, mine.model_copy(update={"model_digest": "earlier"}))
    with pytest.raises(UserError, match="an interrupted run"):
        check_kept(output, store)


def test_a_run_with_another_store_leaves_the_batches_of_an_interrupted_one(tmp_path):
    store = folder_store(tmp_path / "e.h5.parts" / "store")
    done_job(store)
    before = contents(tmp_path)
    tidy(tmp_path / "e.h5.parts", own_store=False)
    assert contents(tmp_path) == before
    tidy(tmp_path / "e.h5.parts", own_store=True)
    assert not list(tmp_path.iterdir())


def test_a_fetch_that_wakes_late_replaces_no_file_that_a_later_one_wrote(job, monkeypatch):
    """Of the same job: in the later one, more rows may have numbers."""
    job.fetch("e.h5")
    seen: dict[Path, bytes] = {}

    def later() -> None:
        job.fetch("e.h5")
        seen.update(contents(Path()))

    once_before(monkeypatch, fetching, "shards_by_batch", later)
    with pytest.raises(UserError, match="was written by another process meanwhile"):
        job.fetch("e.h5")
    assert contents(Path()) == seen
    job.fetch("e.h5")
