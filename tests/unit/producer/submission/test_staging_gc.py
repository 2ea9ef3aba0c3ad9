"""The cyclic garbage collector, which staging turns off."""

import gc

import pytest

from producer.submission.batch_objects import cycle_collection_off


@pytest.mark.parametrize("was_on", [True, False])
def test_staging_leaves_the_garbage_collector_as_it_was(was_on):
    try:
        if not was_on:
            gc.disable()
        with cycle_collection_off():
            assert not gc.isenabled()
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
