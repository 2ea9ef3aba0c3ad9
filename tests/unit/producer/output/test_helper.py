"""Processes that read for the one that writes."""

from dataclasses import fields

import numpy as np
import pytest

from common.job.layout import shard_key
from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import Rung
from producer.output.helper import Helpers, Setup, Shards, helpers_for
from producer.output.job_shards import merged
from producer.output.named import named_rows
from tests.support.copies import store_job
from tests.support.processes import wait_until
from tests.support.shards import store_shard
from tests.support.stores import folder_store

RECORDS = [
    [Record(0, "one é of\ttwo", "MKV"), Record(1, "", "GAG")],
    [Record(2, "three", "MKVLGAST"), Record(3, "four", "MKV")],
]
ATTRIBUTES = {"weights": "w", "dim": 4}


@pytest.fixture
def store(tmp_path):
    return folder_store(tmp_path / "store")


@pytest.fixture
def manifest(store):
    form = OutputForm(include=("mean", "per_residue"), max_residues=5)
    manifest = store_job(store, RECORDS, form)
    for index in range(manifest.batches):
        store_shard(store, manifest, index)
    return manifest


@pytest.fixture
def helpers(store, manifest):
    helpers = Helpers(Setup(store.url, manifest, ATTRIBUTES), 1)
    wait_until(lambda: helpers.named(0), 60)
    yield helpers
    helpers.end()


def shards(manifest, index: int) -> Shards:
    return Shards(None, index, [shard_key(manifest.job, index, Rung.FP16)], True)


def assert_equal(found, expected) -> None:
    for name in (field.name for field in fields(expected)):
        one, other = getattr(found, name), getattr(expected, name)
        if name == "pooled":
            one, other = one.get("mean"), other.get("mean")
        assert np.array_equal(one, other), name


@pytest.mark.parametrize("index", [0, 1])
def test_what_rows_are_called_is_what_this_process_reads(store, manifest, helpers, index):
    assert_equal(helpers.named(index), named_rows(store, manifest, index))


@pytest.mark.parametrize("index", [0, 1])
def test_rows_are_those_that_this_process_reads(store, manifest, helpers, index):
    question = shards(manifest, index)
    part, quarantined = helpers.merged(question)
    assert quarantined == ()
    assert_equal(part, merged(store, manifest, index, question.keys, ATTRIBUTES)[0])
    assert part.pooled["mean"].flags.aligned
    assert part.residues.flags.writeable


def test_what_a_helper_cannot_read_is_left_to_this_process(store, manifest, helpers):
    question = shards(manifest, 1)
    store.put(question.keys[0], b"damaged")
    store.put(manifest.input_key(1), b"damaged")
    assert helpers.merged(question) is None
    assert helpers.named(1) is None
    assert helpers.named(0) is not None


def test_helpers_that_have_ended_are_of_no_use_but_do_no_harm(manifest, helpers):
    helpers.end()
    assert helpers.named(0) is None
    assert helpers.merged(shards(manifest, 0)) is None


def test_none_is_started_for_a_small_job(store, manifest):
    assert helpers_for(store, manifest, ATTRIBUTES) is None
