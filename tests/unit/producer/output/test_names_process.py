"""What rows are called, read by another process."""

from dataclasses import fields

import numpy as np
import pytest

from common.job.output_form import OutputForm
from common.job.records import Record
from producer.output.named import named_rows
from producer.output.names_process import NamesProcess, process_for
from tests.support.copies import store_job
from tests.support.processes import wait_until
from tests.support.stores import folder_store

RECORDS = [
    [Record(0, "one é of\ttwo", "MKV"), Record(1, "", "GAG")],
    [Record(2, "three", "MKVLGAST"), Record(3, "four", "MKV")],
]


@pytest.fixture
def store(tmp_path):
    return folder_store(tmp_path / "store")


@pytest.fixture
def manifest(store):
    return store_job(store, RECORDS, OutputForm(max_residues=5))


@pytest.fixture
def process(store, manifest):
    process = NamesProcess(store, manifest)
    yield process
    process.end()


def test_they_are_those_that_this_process_reads(store, manifest, process):
    first = wait_until(lambda: process.named(0), 60)
    for found, index in ((first, 0), (process.named(1), 1)):
        expected = named_rows(store, manifest, index)
        for name in (field.name for field in fields(expected)):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_what_it_cannot_read_is_left_to_this_process(store, manifest, process):
    wait_until(lambda: process.named(0), 60)
    store.put(manifest.input_key(1), b"damaged")
    assert process.named(1) is None
    assert process.named(0) is not None


def test_a_process_that_has_ended_is_of_no_use_but_does_no_harm(store, manifest):
    process = NamesProcess(store, manifest)
    wait_until(lambda: process.named(0), 60)
    process.end()
    assert process.named(0) is None


def test_none_is_started_for_a_small_job(store, manifest):
    assert process_for(store, manifest) is None
