"""A producer that stops while it stages and goes on after another has staged the same input."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.errors import InputError
from common.job.copies import read_copies
from common.job.inputs import read_input
from common.job.layout import closed_key, quarantine_key, shard_key
from common.job.manifest import Manifest, find_job
from common.ledger.ledger import Ledger
from common.ledger.locks import staging_key
from common.rungs import Rung
from common.store import FileStore
from producer.input.batches import Budget
from producer.scheduling.job_lock import JobLockedError
from producer.submission import input_objects, staging
from producer.submission.input_keys import InputKeys
from producer.submission.request import Request, job_name
from producer.submission.submit import known_shape, stage_alone
from tests.support.woken import once_before
from tests.unit.producer.submission.test_submit import request_of

RECORDS = 40

#: Rows that are identical to an earlier one; in batches of two, row 8 begins one.
COPIES = 8, 11, 23, 24, 39


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path / "store")
    store.check_writable()
    return store


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    fasta = tmp_path / "p.fasta"
    letters = [f"MKTAYI{'LAGVSERT'[row % 8]}{'LAGVS'[row // 8]}" for row in range(RECORDS)]
    for row in COPIES:
        letters[row] = letters[1]
    fasta.write_text("".join(f">r{row}\n{one}\n" for row, one in enumerate(letters)))
    return request_of(fasta)


@pytest.fixture
def stage_it(ledger: Ledger, store: FileStore, request_: Request) -> Callable[..., Manifest]:
    def stage_it(
        tokens: int, meanwhile: Callable[[], object] = lambda: None, after: int = 3
    ) -> Manifest:
        """Stage the input; after this many batches, something happens."""

        def on_staged(_records: int, batches: int) -> None:
            if batches == after:
                meanwhile()

        spec, budget = known_shape(request_), Budget(tokens=tokens)
        return stage_alone(request_, store, ledger, request_.fingerprint(), budget, spec, on_staged)

    return stage_it


def expire(ledger: Ledger, job: str) -> None:
    """Let the time of a job's lock pass."""
    ledger.redis.delete(staging_key(job))


def assert_whole(store: FileStore, manifest: Manifest) -> None:
    """Check that a job has its own input objects and copies, and no others."""
    assert find_job(store, manifest.job) == manifest
    rows: list[int] = []
    for index in range(manifest.batches):
        batch = [record.row for record in read_input(store, manifest, index)]
        copies = read_copies(store, manifest, index)
        assert {copy.original for copy in copies} <= {1}
        rows += sorted([*batch, *(copy.row for copy in copies)])
    assert rows == list(range(RECORDS))
    assert 0 < manifest.report.identical <= len(COPIES)
    if manifest.staging:  # a producer that woke up may have left objects under the other keys
        parts = (f"{manifest.job}/{part}/{manifest.staging}/" for part in ("input", "copies"))
        assert {key for part in parts for key in store.keys(part)} == keys_of(manifest)


def keys_of(manifest: Manifest) -> set[str]:
    """Return the keys of a job's input objects and copies."""
    batches = range(manifest.batches)
    copies = {manifest.copies_key(index) for index in batches if manifest.copies_of(index)}
    return copies | {manifest.input_key(index) for index in batches}


def test_a_producer_that_wakes_after_another_has_staged_takes_the_other_s_job(
    ledger, store, request_, stage_it
):
    job = job_name(request_.source, request_.fingerprint())
    others: list[Manifest] = []

    def frozen() -> None:
        expire(ledger, job)
        others.append(stage_it(100))
        store.put(shard_key(job, 0, Rung.FP16), b"computed")
        store.put(closed_key(job), b"finished")

    found = stage_it(20, frozen)
    assert [found] == others
    assert_whole(store, found)
    assert store.get(shard_key(job, 0, Rung.FP16)) == b"computed"
    assert store.get(closed_key(job)) == b"finished"


def test_a_producer_that_wakes_while_another_stages_ends_and_leaves_it_alone(
    ledger, store, request_, stage_it
):
    job = job_name(request_.source, request_.fingerprint())
    others = f"{job}/input/0123/0000000.fasta"

    def another_begins() -> None:
        expire(ledger, job)
        assert ledger.locks.hold_staging(job, "another")
        store.put(others, b"another's")

    with pytest.raises(JobLockedError, match="is being submitted by another producer"):
        stage_it(20, another_begins)
    assert find_job(store, job) is None
    assert store.get(others) == b"another's"
    assert ledger.locks.hold_staging(job, "another", renew=True)


def test_the_manifest_is_never_replaced_even_by_one_that_slept_right_before_writing_it(
    ledger, store, request_, stage_it, monkeypatch
):
    job = job_name(request_.source, request_.fingerprint())
    write, others = staging.write_manifest, []

    def late_write(*arguments: object, **options: object) -> None:
        monkeypatch.setattr(staging, "write_manifest", write)
        expire(ledger, job)
        others.append(stage_it(100))
        write(*arguments, **options)

    monkeypatch.setattr(staging, "write_manifest", late_write)
    found = stage_it(20)
    assert [found] == others
    assert_whole(store, found)


@pytest.mark.parametrize("forget", ["the lock", "all keys"])
def test_a_long_staging_outlives_its_lock_and_a_redis_that_was_emptied(
    ledger, store, request_, stage_it, forget
):
    job = job_name(request_.source, request_.fingerprint())
    manifest = stage_it(
        20, ledger.redis.flushall if forget == "all keys" else lambda: expire(ledger, job)
    )
    assert manifest.batches > 3
    assert_whole(store, manifest)


def test_an_error_deletes_nothing_but_the_own_input(ledger, store, request_, stage_it):
    job = job_name(request_.source, request_.fingerprint())
    store.put(f"{job}/input/0123/0000000.fasta", b"another's")

    def fail() -> None:
        raise InputError("a bad record")

    with pytest.raises(InputError):
        stage_it(20, fail)
    assert list(store.keys("")) == [f"{job}/input/0123/0000000.fasta"]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_nothing_is_left_of_a_submit_that_failed(store, request_, stage_it):
    with pytest.raises(KeyboardInterrupt):
        stage_it(20, interrupt)
    assert list(store.keys("")) == list(store.folders()) == []


def test_what_earlier_submits_left_is_gone_once_the_job_is_staged(
    ledger, store, request_, stage_it
):
    job = job_name(request_.source, request_.fingerprint())
    for key in (
        f"{job}/input/0000007.fasta",
        f"{job}/input/0123/0000000.fasta",
        f"{job}/copies/0000000.tsv",
        f"{job}/copies/0123/0000009.tsv",
        shard_key(job, 0, Rung.FP16),
        quarantine_key(job, 0),
        closed_key(job),
    ):
        store.put(key, b"left")
    manifest = stage_it(20)
    assert_whole(store, manifest)
    assert set(store.keys(f"{job}/")) == {
        f"{job}/manifest.json",
        *keys_of(manifest),
    }


def test_the_lock_is_renewed_while_what_an_earlier_submit_left_is_deleted(
    ledger, store, request_, stage_it, monkeypatch
):
    job = job_name(request_.source, request_.fingerprint())
    for index in range(50):
        store.put(f"{job}/input/{index:07d}.fasta", b"left")
    delete, held = store.delete_keys, []

    def renewed(keys: list[str], check: Callable[[], None]) -> None:
        def watched() -> None:
            expire(ledger, job)
            check()
            held.append(ledger.redis.ttl(staging_key(job)))

        delete(keys, watched)

    monkeypatch.setattr(store, "delete_keys", renewed)
    assert_whole(store, stage_it(20))
    assert len(held) > 50
    assert min(held) > 50


def test_what_an_earlier_submit_left_stays_if_another_has_the_lock_by_then(
    ledger, store, request_, stage_it, monkeypatch
):
    """The job may be deleted and staged again under the same keys by then."""
    job = job_name(request_.source, request_.fingerprint())
    left = f"{job}/input/0000007.fasta"
    store.put(left, b"left")

    def frozen() -> None:
        expire(ledger, job)
        assert ledger.locks.hold_staging(job, "another")

    once_before(monkeypatch, store, "delete_keys", frozen)
    assert_whole(store, stage_it(20))
    assert store.get(left) == b"left"


def test_a_later_staging_is_later_whatever_the_clocks_say(ledger, store, request_, stage_it):
    first = stage_it(20)
    ahead = first.model_copy(update={"created": first.created.replace(year=2099)})
    ledger.jobs.create(ahead, "m.fp16")
    store.delete(f"{first.job}/")
    second = stage_it(100)
    assert second.created > ahead.created
    assert ledger.jobs.create(second, "m.fp16")


def test_the_time_of_a_job_is_redis_s(ledger, stage_it):
    before = ledger.now()
    assert before <= stage_it(20).created <= ledger.now()


def test_the_keys_are_those_of_earlier_versions_if_nothing_is_left_of_another(store, stage_it):
    manifest = stage_it(20)
    assert manifest.staging == ""
    assert set(store.keys(f"{manifest.job}/")) == {
        f"{manifest.job}/manifest.json",
        *(f"{manifest.job}/input/{index:07d}.fasta" for index in range(manifest.batches)),
        *(f"{manifest.job}/copies/{i:07d}.tsv" for i, n in enumerate(manifest.batch_copies) if n),
    }


def test_a_producer_that_wakes_writes_nothing_more(ledger, store, request_, stage_it, monkeypatch):
    """Not even under keys that a later job of the same name has as well."""
    job = job_name(request_.source, request_.fingerprint())
    monkeypatch.setattr("producer.submission.submit.STAGING_SECONDS", 0)
    seen: dict[str, bytes] = {}

    def frozen() -> None:
        expire(ledger, job)
        stage_it(100)
        expire(ledger, job)
        store.delete(f"{job}/")
        assert stage_it(40).staging == ""
        seen.update({key: store.get(key) for key in store.keys("")})

    once_before(monkeypatch, input_objects, "crc32", frozen)  # in the thread that writes
    manifest = stage_it(20)
    assert {key: store.get(key) for key in store.keys("")} == seen
    assert_whole(store, manifest)


@pytest.mark.parametrize("forget", ["the lock", "all keys"])
def test_a_producer_that_stops_before_it_claims_its_keys_leaves_the_job_of_another_alone(
    ledger, store, request_, stage_it, monkeypatch, forget
):
    """The other had the same keys, and needs them no more."""
    job = job_name(request_.source, request_.fingerprint())
    seen: dict[str, bytes] = {}

    def frozen() -> None:
        expire(ledger, job)
        assert stage_it(100).staging == ""
        if forget == "all keys":
            ledger.redis.flushall()
        seen.update({key: store.get(key) for key in store.keys("")})

    once_before(monkeypatch, InputKeys, "claim", frozen)
    manifest = stage_it(20)
    assert {key: store.get(key) for key in store.keys("")} == seen
    assert_whole(store, manifest)


def stage_as_before(store: FileStore, request: Request, tokens: int) -> None:
    """Stage an input as the version before did, up to its manifest: it knows of no claim."""
    job = job_name(request.source, request.fingerprint())
    store.delete(f"{job}/")
    manifest = staging.stage(
        *(store, request, request.fingerprint()),
        budget=Budget(tokens=tokens),
        spec=known_shape(request),
        created=lambda: datetime.now(UTC),
    )
    assert manifest.staging == ""


def test_a_producer_that_wakes_after_one_of_the_version_before_has_staged_changes_nothing(
    store, request_, stage_it, monkeypatch
):
    """That one left no trace in Redis: the lock can be renewed."""
    monkeypatch.setattr("producer.submission.submit.STAGING_SECONDS", 0)
    seen: dict[str, bytes] = {}

    def frozen() -> None:
        stage_as_before(store, request_, 100)
        seen.update({key: store.get(key) for key in store.keys("")})

    once_before(monkeypatch, input_objects, "crc32", frozen)  # in the thread that writes
    manifest = stage_it(20)
    assert seen
    assert {key: store.get(key) for key in store.keys("")} == seen
    assert_whole(store, manifest)


def test_a_producer_whose_keys_another_took_and_left_writes_no_manifest(
    store, request_, stage_it, monkeypatch
):
    """One of the version before that was killed in the middle of its staging."""
    job = job_name(request_.source, request_.fingerprint())

    def frozen() -> None:
        store.delete(f"{job}/")
        store.put(f"{job}/input/0000000.fasta", b"of a batch of another size")

    once_before(monkeypatch, input_objects, "crc32", frozen)  # in the thread that writes
    with pytest.raises(JobLockedError, match=r"while this one stood still\. Run the command again"):
        stage_it(20)
    assert find_job(store, job) is None
    assert_whole(store, stage_it(20))
