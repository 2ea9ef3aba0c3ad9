"""Several inputs in one job, by the command and in Python."""

import uuid
from pathlib import Path

import boto3
import pytest

import virnucpro_fleet as vf
from common.job.inputs import read_input
from common.job.manifest import Manifest, read_manifest
from common.store import open_store
from tests.integration.conftest import BUCKET
from tests.support.processes import Fleet
from tests.support.swift import S3Server


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in {
        "a.fa": ">a\nMKTAYIAK\n>b\nGAVL\n",
        "d/c.fa": ">c\nMKV\n",
        "d/b.fa": ">a\nMML\n",
        "d/notes.md": "notes",
        "list.txt": "a.fa\n# and a folder\nd\n",
    }.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "in"


def submitted(fleet: Fleet, *words: str, **options) -> tuple[Manifest, str]:
    """Submit a job; return its manifest, and what was said."""
    done = fleet.producer("submit", *words, "--model", "random:esm2_t6_8M_UR50D", **options)
    assert done.returncode == 0, done.stderr
    return read_manifest(open_store(fleet.store_url), done.stdout.strip()), done.stderr


def records(fleet: Fleet, manifest: Manifest) -> list[tuple[int, str, str]]:
    store = open_store(fleet.store_url)
    found = [read_input(store, manifest, index) for index in range(manifest.batches)]
    return [tuple(record) for batch in found for record in batch]


def test_files_folders_and_sequences_are_one_job(fleet, folder):
    options = ("--include", "mean", "bos", "a.fa", "d", "--layers", "-1,3", "--sequence", "GGA")
    manifest, said = submitted(fleet, *options, cwd=folder)
    assert records(fleet, manifest) == [
        (0, "a", "MKTAYIAK"),
        (1, "b", "GAVL"),
        (2, "a", "MML"),
        (3, "c", "MKV"),
        (4, "seq_1", "GGA"),
    ]
    assert [tuple(source.model_dump().values()) for source in manifest.sources] == [
        ("a.fa", 2),
        ("d/b.fa", 1),
        ("d/c.fa", 1),
        ("sequences", 1),
    ]
    assert (manifest.form.include, manifest.form.layers) == (("mean", "bos"), (-1, 3))
    assert "a.fa and 3 more sources: 5 records" in said
    assert "1 file of a folder not read, for the suffix: notes.md" in said
    assert "1 record with the id of an earlier record" in said
    assert submitted(fleet, *options, cwd=folder)[0] == manifest


def test_a_list_and_a_pattern_are_the_same_job_as_their_files(fleet, folder):
    names = ("a.fa", "d/b.fa", "d/c.fa")
    manifest, _ = submitted(fleet, *names, cwd=folder)
    assert manifest.job.startswith("a-and-2-more-")
    assert submitted(fleet, "--from", "list.txt", cwd=folder)[0] == manifest
    assert submitted(fleet, "a.fa", "d/*.fa", cwd=folder)[0] == manifest


def test_a_folder_with_one_file_is_the_job_of_that_file(fleet, folder):
    manifest, _ = submitted(fleet, "d/c.fa", cwd=folder)
    assert manifest.sources == ()
    (folder / "d" / "b.fa").unlink()
    assert submitted(fleet, "d", cwd=folder)[0] == manifest


@pytest.mark.filterwarnings("ignore::UserWarning")  # of random weights, and that no worker runs
def test_a_python_program_names_several_paths(fleet, folder):
    client = vf.Fleet(broker=fleet.broker_url, store=fleet.store_url)
    paths = [folder / "a.fa", folder / "d"]
    job = client.submit(paths, model="random:esm2_t6_8M_UR50D")
    assert [source.records for source in job.manifest.sources] == [2, 1, 1]


def test_no_output_replaces_one_of_the_inputs(fleet, folder):
    done = fleet.producer("submit", "a.fa", "d", "-o", "d/c.fa", "--layout", "h5", cwd=folder)
    assert done.returncode == 2
    (folder / "d" / "c.h5").write_text(">c\nMKV\n")
    done = fleet.producer("submit", "a.fa", "d/c.h5", "-o", "d/c.h5", "--overwrite", cwd=folder)
    assert done.returncode == 2
    assert "d/c.h5 is the input d/c.h5 itself" in done.stderr


def test_a_prefix_and_a_pattern_of_a_bucket_are_its_objects(s3_fleet, s3: S3Server, monkeypatch):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    prefix = f"in-{uuid.uuid4().hex}"
    for key, body in {
        "b.fa": b">b\nMKT\n",
        "a.fa": b">a\nGAV\n",
        "readme.md": b"x",
        "deep/c.fa": b">c\nMML\n",
    }.items():
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=body)
    url = f"s3://{BUCKET}/{prefix}"
    manifest, said = submitted(s3_fleet, f"{url}/")
    assert [source.name for source in manifest.sources] == [f"{url}/a.fa", f"{url}/b.fa"]
    assert "not read, for the suffix: readme.md" in said
    manifest, _ = submitted(s3_fleet, f"{url}/*.fa")
    names = [source.name.removeprefix(url) for source in manifest.sources]
    assert names == ["/a.fa", "/b.fa", "/deep/c.fa"]
    wrongs = {f"{url}/x*": "looked at 0 objects", f"{url}x/": "the prefix has no object to read"}
    for wrong, message in wrongs.items():
        done = s3_fleet.producer("submit", wrong, "--model", "random:esm2_t6_8M_UR50D")
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.parametrize(
    ("option", "here"),
    [("--repr_layers", "is here --layers."), ("--nogpu", "is here --gpus none.")],
)
def test_an_option_of_esm_extract_is_told_by_its_name_here(fleet, folder, option, here):
    done = fleet.producer("submit", "a.fa", option, "33", cwd=folder)
    assert done.returncode == 2
    assert f"Unknown option: {option}. " in done.stderr
    assert here in done.stderr


def test_an_unknown_option_is_no_input(fleet, folder):
    done = fleet.producer("submit", "a.fa", "--outptu", "x.h5", cwd=folder)
    assert done.returncode == 2
    assert "Unknown option: --outptu" in done.stderr
