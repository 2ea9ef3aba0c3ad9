"""Shards that changed in the store: ``fetch`` refuses them and says how to compute them again."""

import re
import shlex

import numpy as np
import pytest

from common.store import open_store
from tests.support.processes import Fleet, run_producer
from tests.support.results import load


@pytest.fixture(params=["folder", "bucket"])
def any_fleet(request, monkeypatch) -> Fleet:
    fleet = request.getfixturevalue("fleet" if request.param == "folder" else "s3_fleet")
    for name, value in fleet.environment.items():
        monkeypatch.setenv(name, value)
    return fleet


@pytest.fixture
def finished(any_fleet, tiny, examples, tmp_path):
    """The job's name, with a worker that runs."""
    submit = ("submit", examples, "--model", tiny, "--batch-tokens=1500")
    with any_fleet.workers(tiny, tmp_path):
        done = any_fleet.producer(*submit, "-o", tmp_path / "right.h5")
        assert done.returncode == 0, done.stderr
        yield any_fleet.ledger.jobs.names()[0]


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_shards_with_a_bit_flipped_or_lost_are_computed_again_as_fetch_says_and_no_others(
    any_fleet, finished, tmp_path
):
    store = open_store(any_fleet.store_url)
    flipped, lost, *others = sorted(store.keys(f"{finished}/output/"))
    store.put(flipped, flip_a_bit(store.get(flipped)))
    told = any_fleet.producer("fetch", finished, "-o", tmp_path / "e.h5")
    assert told.returncode == 2
    assert f"{flipped} cannot be read" in told.stderr
    store.delete(lost)
    before = [store.get(key) for key in others]
    (command,) = re.findall(r"producer (retry .*)$", told.stderr, re.MULTILINE)
    done = any_fleet.producer(*shlex.split(command))
    assert done.returncode == 0, done.stderr
    assert f"{flipped} cannot be used: deleted" in done.stderr
    assert any_fleet.producer("watch", finished).returncode == 0
    assert any_fleet.producer("fetch", finished, "-o", tmp_path / "e.h5").returncode == 0
    right, found = load(tmp_path / "right.h5"), load(tmp_path / "e.h5")
    assert found.keys() == right.keys()
    for name, values in right.items():
        np.testing.assert_array_equal(found[name], values)
    assert [store.get(key) for key in others] == before


def test_a_damaged_shard_of_a_local_job_is_computed_again_as_the_message_says(
    tiny, examples, tmp_path
):
    submit = ("submit", examples, "--local", "--model", tiny, "-o", "e.h5", "--store=kept")
    assert run_producer(*submit, cwd=tmp_path).returncode == 0
    right = load(tmp_path / "e.h5")
    shard, *_ = (tmp_path / "kept").glob("*/output/*.h5")
    shard.write_bytes(flip_a_bit(shard.read_bytes()))
    told = run_producer(*submit, cwd=tmp_path)
    assert told.returncode == 2
    (command,) = re.findall(r"producer (resume .*)$", told.stderr, re.MULTILINE)
    done = run_producer(*shlex.split(command), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(load(tmp_path / "e.h5")["mean"], right["mean"])
