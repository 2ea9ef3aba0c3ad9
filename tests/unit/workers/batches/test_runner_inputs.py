"""Input objects that changed in the store: no batch is computed from them."""

from datetime import timedelta

import pytest

from common.job.layout import input_key
from common.job.manifest import write_manifest
from tests.support.shards import store_inputs
from tests.support.worlds import FP16, RECORDS, ROWS, SELECTIVE, FakeEngine, World, failure


def change(world: World, old: bytes, new: bytes) -> None:
    """Change the first batch's input object once."""
    key = input_key(world.job, 0)
    world.store.put(key, world.store.get(key).replace(old, new, 1))


def of_an_earlier_version(world: World) -> World:
    """Make a job one of a version that stored no checksums."""
    world.manifest = world.manifest.model_copy(update={"input_crc32": ""})
    write_manifest(world.store, world.manifest)
    return world


@pytest.mark.parametrize(
    ("old", "new"), [(b"MKV", b"LKV"), (b">1", b">0"), (b"id2", b"id3"), (b"words", b"")]
)
def test_an_input_object_that_changed_fails_its_batch_at_once(world, batch, old, new):
    change(world, old, new)
    engine = FakeEngine()
    assert failure(world, batch, engine) == (
        f"{world.store.url}/{input_key(world.job, 0)} is damaged (it has another checksum than "
        f"when it was staged): delete {world.store.url}/{world.job}/ and submit the input again."
    )
    assert engine.calls == []
    assert world.shards() == []


def test_an_object_that_was_damaged_on_its_way_is_read_once_more(world, batch, monkeypatch):
    get, answers = world.store.get, iter([b">0 id0\nMKL\n"])

    def damaged_once(key: str) -> bytes:
        return get(key) if "/input/" not in key else next(answers, None) or get(key)

    monkeypatch.setattr(world.store, "get", damaged_once)
    world.runner().run(batch)
    assert world.progress.batches_done == 1
    assert world.shard(0).rows.tolist() == ROWS[0]


@pytest.mark.parametrize("letter", [b"m", b"J", b"*", "é".encode(), b" ", b"\x01"])
def test_a_letter_that_the_model_has_not_is_an_error_in_jobs_of_earlier_versions_too(world, letter):
    of_an_earlier_version(world)
    change(world, b"\nMKV", b"\n" + letter + b"KV")
    engine = FakeEngine()
    error = failure(world, world.manifest.batch(0), engine)
    assert "0000000.fasta is damaged (it has letters that are not of protein): delete" in error
    assert engine.calls == []


@pytest.mark.parametrize(("old", "new"), [(b">1 ", b">0 "), (b">2 ", b">9 ")])
def test_rows_that_changed_are_an_error_in_jobs_of_earlier_versions_too(world, old, new):
    of_an_earlier_version(world)
    change(world, old, new)
    error = failure(world, world.manifest.batch(0))
    assert "0000000.fasta is damaged (its rows are not in order): delete" in error


def test_a_retry_reads_what_was_staged_too(world, batch):
    engine = FakeEngine({0: [FP16]})
    world.runner(engine).run(batch)
    change(world, b"MKV", b"LKV")
    world.runner(engine).run(world.published[-1])
    assert "is damaged (it has another checksum" in str(world.results[-1].error)
    assert [rung for rung, _ in engine.calls] == [FP16]
    assert world.results[-1].rung is SELECTIVE


def test_a_worker_knows_the_checksums_of_the_latest_staging(world, batch):
    runner = world.runner()
    runner.run(batch)
    later = world.manifest.created + timedelta(seconds=1)
    again = world.manifest.model_copy(update={"created": later, "batch_records": [3, 3]})
    world.ledger.jobs.forget(world.job)
    world.store.delete(world.job + "/")
    world.manifest = store_inputs(world.store, again, RECORDS)
    write_manifest(world.store, world.manifest)
    world.ledger.jobs.create(world.manifest, "random.esm2_t6_8M_UR50D.fp16")
    runner.run(world.manifest.batch(0))
    assert world.progress.batches_done == 1
    assert world.shard(0).rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "key", ["/etc/passwd", "../../etc/passwd", "other/input/0000000.fasta", ""]
)
def test_the_key_of_a_message_is_not_read(world, batch, key):
    engine = FakeEngine()
    world.runner(engine).run(batch.model_copy(update={"key": key}))
    assert len(engine.calls) == 1
    assert world.shards()
