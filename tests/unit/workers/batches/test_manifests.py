"""What a worker reads of a job, which may still be being staged."""

from datetime import timedelta

import pytest

from common.errors import UserError
from common.job.layout import manifest_key, opening_key
from common.job.manifest import Manifest, write_manifest
from common.job.opening import write_opening
from common.store import FileStore, ObjectNotFoundError, StoreError
from tests.support.jobs import manifest_of
from tests.support.stores import folder_store
from workers.batches import manifests
from workers.batches.manifests import Manifests
from workers.batches.outcome import OutcomeKind

WHOLE = manifest_of([3, 2, 4, 1])


def first(batches: int) -> Manifest:
    """Return the opening of a job, so far."""
    return manifest_of([3, 2, 4, 1][:batches], created=WHOLE.created)


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "apart")


@pytest.fixture
def read(store) -> Manifests:
    return Manifests(store)


def test_a_batch_of_a_job_that_is_being_staged_is_computed(world):
    world.store.delete(manifest_key(world.manifest.job))
    write_opening(world.store, world.manifest)
    assert world.runner().run(world.manifest.batch(0)).kind is OutcomeKind.DONE


def test_an_opening_is_read_again_once_a_batch_is_not_in_it(store, read):
    write_opening(store, first(2))
    assert read.of(WHOLE.batch(1)) == first(2)
    write_opening(store, first(3))
    assert read.of(WHOLE.batch(0)) == first(2), "what is known suffices"
    assert read.of(WHOLE.batch(2)) == first(3)
    write_manifest(store, WHOLE)
    store.delete(opening_key(WHOLE.job))
    assert read.of(WHOLE.batch(3)) == WHOLE
    store.delete(manifest_key(WHOLE.job))
    assert read.of(WHOLE.batch(2)) == WHOLE


def test_a_manifest_goes_before_an_opening_that_is_still_there(store, read):
    write_opening(store, first(1))
    write_manifest(store, WHOLE)
    assert read.of(WHOLE.batch(0)) == WHOLE


def test_a_store_that_shows_an_earlier_opening_is_asked_again_later(store, read):
    write_opening(store, first(1))
    with pytest.raises(StoreError, match=r"opening.json does not have batch 1 yet"):
        read.of(WHOLE.batch(1))


@pytest.mark.parametrize("write", [write_opening, write_manifest])
def test_a_batch_is_not_computed_from_what_another_staging_wrote(store, read, write):
    """It may have cut the input into other batches."""
    write(store, manifest_of([3, 2, 4, 1], created=WHOLE.created + timedelta(seconds=1)))
    with pytest.raises(StoreError, match="is of another staging of the job than batch 1"):
        read.of(WHOLE.batch(1))


def test_a_job_with_neither_is_not_there(store, read):
    with pytest.raises(ObjectNotFoundError):
        read.of(WHOLE.batch(0))


def test_an_opening_that_is_damaged_is_none(store, read):
    store.put(opening_key(WHOLE.job), b"{}")
    with pytest.raises(ObjectNotFoundError):
        read.of(WHOLE.batch(0))


def test_a_damaged_manifest_is_named_though_there_is_an_opening(store, read):
    write_opening(store, WHOLE)
    store.put(manifest_key(WHOLE.job), b"{}")
    with pytest.raises(UserError, match=r"manifest.json is damaged"):
        read.of(WHOLE.batch(0))


def test_only_the_latest_manifests_stay_in_memory(store, read, monkeypatch):
    monkeypatch.setattr(manifests, "KEPT", 2)
    jobs = [manifest_of([1], job=f"job-{number}") for number in range(3)]
    for job in jobs:
        write_manifest(store, job)
        read.of(job.batch(0))
        store.delete(manifest_key(job.job))
    assert [read.of(job.batch(0)) for job in jobs[1:]] == jobs[1:]
    with pytest.raises(ObjectNotFoundError):
        read.of(jobs[0].batch(0))
