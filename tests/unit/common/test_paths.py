"""Paths that a person writes: the home folder, folders that are missing, files that stay."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.embeddings.file import load
from common.errors import UserError
from common.job.records import Record
from common.paths import check_has_folder, check_replaceable, user_path
from common.settings import Settings
from common.store import open_store
from producer.fleet.fleet import Fleet
from producer.submission.records import as_source
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs, store_shard

#: Names of folders on any file system, and what a shell would make of them.
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=40,
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_the_home_folder_is_known_by_its_sign(home):
    assert user_path("~/a b/o.h5") == home / "a b" / "o.h5"
    assert user_path("o~.h5") == Path("o~.h5")
    assert user_path(user_path("./~/o.h5")) == Path.cwd() / "~" / "o.h5"


def test_a_home_folder_of_nobody_is_an_error_of_the_user():
    with pytest.raises(UserError, match="the home folder of '~no-such-user' is not known"):
        user_path("~no-such-user/o.h5")


@pytest.mark.parametrize("url", ["~/s", "file://~/s"])
def test_a_store_may_be_in_the_home_folder_wherever_it_is_named(home, monkeypatch, url):
    assert open_store(url).url == f"file://{home}/s"
    assert Fleet(store=url).store.url == f"file://{home}/s"
    monkeypatch.setenv("VIRNUCPRO_STORE", url)
    assert Fleet().store.url == f"file://{home}/s"


def test_a_liveness_file_may_be_in_the_home_folder(home, monkeypatch):
    monkeypatch.setenv("VIRNUCPRO_LIVENESS_FILE", "~/alive")
    assert Settings.read().liveness_file == home / "alive"
    assert Settings.read(liveness_file=Path("~/other")).liveness_file == home / "other"


def test_an_input_may_be_in_the_home_folder(home):
    (home / "p.fasta").write_text(">a\nMK\n")
    for given_ in ("~/p.fasta", Path("~/p.fasta")):
        with as_source(given_) as source:
            assert source.name == str(home / "p.fasta")


def test_a_file_is_fetched_to_the_home_folder_and_loaded_from_there(home):
    fleet, manifest = Fleet(store="~/s"), manifest_of([1])
    fleet.store.check_writable()
    store_inputs(fleet.store, manifest, [Record(0, "a", "MK")])
    store_shard(fleet.store, manifest, 0)
    fleet.store.put(f"{manifest.job}/manifest.json", manifest.model_dump_json().encode())
    fetched = fleet.job(manifest.job).fetch("~/o.h5")
    assert fetched.path == home / "o.h5"
    with load("~/o.h5") as embeddings:
        assert embeddings.ids == ["a"]


def test_the_logs_of_a_local_fleet_go_to_the_home_folder_and_spare_what_is_there(home):
    (home / "logs").mkdir()
    (home / "logs" / "worker.log").write_text("of somebody\n")
    with Fleet.local(folder="~/logs", store="~/s", gpus="none") as fleet:
        assert fleet.machine.log == home / "logs" / "worker.log"
        assert fleet.store.url == f"file://{home}/s"
    assert (home / "logs" / "worker.log").read_text() == "of somebody\n"


@settings(max_examples=20)
@given(NAMES)
def test_a_missing_folder_is_made_by_the_command_of_the_message(name):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name, "deep", "o.h5")
        with pytest.raises(UserError) as caught:
            check_has_folder(file)
        command = str(caught.value).partition("make this one: ")[2]
        subprocess.run(["sh", "-c", command], check=True, cwd=folder)
        check_has_folder(file)


def test_a_folder_that_looks_like_an_option_is_made_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"mkdir -p \./-p$"):
        check_has_folder(Path("-p/o.h5"))


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--trace .* cannot be written: .*/file is not a folder"):
        check_has_folder(tmp_path / "file" / "deep" / "t.json", "--trace")


def test_only_a_file_of_the_same_kind_is_replaced(tmp_path):
    path = tmp_path / "t.json"
    check_replaceable(path, b"traceEvents", "--trace")
    path.write_text('{"traceEvents": []}')
    check_replaceable(path, b"traceEvents", "--trace")
    path.write_text("{}")
    with pytest.raises(UserError, match=r"--trace .*t.json exists, and this command did not"):
        check_replaceable(path, b"traceEvents", "--trace")
