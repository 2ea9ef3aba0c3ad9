"""Fleet and Job: each act on them, with a ledger and a store and no worker."""

import warnings
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from common.errors import (
    InputError,
    JobEndedError,
    JobRunningError,
    UnknownJobError,
    UserError,
    WaitTimeoutError,
)
from common.job.layout import manifest_key
from common.job.manifest import write_manifest
from common.ledger.batches import Batches
from common.store import ObjectNotFoundError, StoreError
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.scheduling.job_lock import JobLockedError
from producer.scheduling.keeper import Keeper
from tests.support.jobs import ok
from tests.support.shards import store_shard
from tests.support.woken import once_before

MODEL = "esm2_t6_8M_UR50D"
RECORDS = {"P1": "MKTAYIAK", "P2": "GAVL"}


@pytest.fixture
def fleet(redis, redis_url, tmp_path) -> Fleet:
    fleet = Fleet(broker=redis_url, store=str(tmp_path / "store"))
    fleet.store.check_writable()
    return fleet


@pytest.fixture
def job(fleet):
    with pytest.warns(UserWarning, match=f"no worker serves {MODEL}.fp16 yet"):
        return fleet.submit(RECORDS, model=MODEL)


def test_records_are_the_same_job_as_pairs_and_as_a_mapping(fleet, job):
    with pytest.warns(UserWarning, match="no worker serves"):
        again = fleet.submit(RECORDS.items(), model=MODEL)
    assert again.name == job.name
    assert job.name.startswith("records-")
    assert job.manifest.input == "records"
    assert job.manifest.report.records == 2


def test_a_path_may_be_a_path_object(fleet, tmp_path):
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">a\nMKTAYIAK\n")
    with pytest.warns(UserWarning, match="no worker serves"):
        assert fleet.submit(fasta, model=MODEL).name.startswith("p-")


def test_a_bad_record_is_an_error_with_its_place(fleet):
    with pytest.raises(InputError) as caught:
        fleet.submit({"P1": "MKT", "P2": "MK1"}, model=MODEL)
    error = caught.value
    assert (error.path, error.line, error.record) == (None, None, 2)
    assert str(error).startswith("Record 2 ('P2') has '1' at position 3")


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"a\n>b": "MKT"}, "has a line break in its id"),
        ({"a\rb": "MKT"}, "has a line break in its id"),
        ({"a": "MK\n>b\nGA"}, "is FASTA rather than a sequence"),
        ({"a": ";MKT"}, "is FASTA rather than a sequence"),
        ({"a": " \n#MKT"}, "is FASTA rather than a sequence"),
    ],
)
def test_a_record_that_fasta_cannot_hold_is_refused(fleet, bad, text):
    with pytest.raises(InputError, match=text):
        fleet.submit(bad, model=MODEL)


def test_white_space_in_sequences_is_dropped_and_an_id_may_have_an_angle(fleet, tmp_path):
    given = {"<unknown>": "MKTAY IAK\n", "P2": "\tGAV\r\nLIMF"}
    with pytest.warns(UserWarning, match="no worker serves"):
        job = fleet.submit(given, model=MODEL)
    (batch,) = (tmp_path / "store").glob("*/input/*")
    assert batch.read_text() == ">0 <unknown>\nMKTAYIAK\n>1 P2\nGAVLIMF\n"
    assert job.manifest.report.records == 2


def test_all_bad_records_of_a_program_are_listed(fleet):
    with pytest.raises(InputError) as caught:
        fleet.submit(["MJ", "MK", "", "M1"], model=MODEL)
    assert str(caught.value).splitlines()[:3] == [
        "records: 3 records cannot be embedded.",
        "  record 1 ('0') has 'J' at position 2, which is not one of the model's amino acids.",
        "  record 3 ('2') has no sequence.",
    ]


def test_what_was_found_besides_letters_is_a_warning_and_an_option_changes_it(fleet):
    def submitted(**options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            job = fleet.submit(["MK--TAYI.", "GAVLIMF"], model=MODEL, **options)
        return job, str(caught[0].message)

    kept, text = submitted()
    assert text.startswith("1 record with gaps (- or .), embedded by tokens of gaps")
    stripped, text = submitted(gaps="strip")
    assert text == "1 record with gaps (- or .), which were removed."
    assert kept.name != stripped.name
    assert (kept.manifest.report.residues, stripped.manifest.report.residues) == (15, 13)
    with pytest.raises(InputError, match="which is a gap"):
        fleet.submit(["M-K"], model=MODEL, gaps="error")


def test_a_job_is_listed_waited_for_cancelled_and_resumed(fleet, job):
    assert [known.name for known in fleet.jobs()] == [job.name]
    assert job.status().batches == 1
    with pytest.raises(WaitTimeoutError, match="did not finish within 0 seconds"):
        job.wait(timeout=0)
    job.cancel()
    with pytest.raises(JobEndedError, match="was cancelled"):
        job.wait()
    with pytest.raises(JobEndedError, match="is cancelled"):
        job.retry()
    assert job.resume() == 1
    assert job.status().state == "open"
    assert job.retry() == 1


def test_a_deleted_job_is_known_to_nobody(fleet, job):
    job.delete()
    assert fleet.jobs() == []
    assert list(fleet.store.keys("")) == []
    with pytest.raises(UnknownJobError, match="Redis knows no job"):
        job.status()
    with pytest.raises(UnknownJobError, match="has no job"):
        assert fleet.job(job.name).manifest


def test_a_deletion_that_was_cut_can_be_repeated(fleet, job):
    fleet.ledger.jobs.forget(job.name)
    fleet.store.delete(manifest_key(job.name))
    assert list(fleet.store.keys(f"{job.name}/"))
    job.delete()
    assert list(fleet.store.keys("")) == []
    with pytest.raises(UnknownJobError, match="knows a job"):
        job.delete()


def test_a_job_that_redis_forgot_is_not_deleted_once_it_was_resumed(fleet, job, monkeypatch):
    fleet.ledger.redis.flushall()
    kept = sorted(fleet.store.keys(""))
    once_before(monkeypatch, fleet.store, "delete", job.resume)
    with pytest.raises(JobLockedError, match="was resumed while it was deleted"):
        job.delete()
    assert sorted(fleet.store.keys("")) == kept


def test_a_closed_job_that_redis_forgot_is_deleted_and_one_without_the_mark_is_not(fleet, job):
    job.cancel()
    fleet.ledger.redis.flushall()
    kept = sorted(fleet.store.keys(""))
    with pytest.raises(JobRunningError, match="may be running on another Redis"):
        job.check_deletable()
    with pytest.raises(JobRunningError, match="may be running on another Redis"):
        job.delete(running=False)
    assert sorted(fleet.store.keys("")) == kept
    job.resume()
    job.cancel()
    Keeper(fleet.store, fleet.ledger, fleet.publisher).step()
    fleet.ledger.redis.flushall()
    job.check_deletable()
    job.delete(running=False)
    assert list(fleet.store.keys("")) == []


@pytest.mark.parametrize("running", [False, True])
def test_another_job_of_the_same_name_in_the_store_is_not_deleted(fleet, job, running):
    job.cancel()
    other = job.manifest.model_copy(update={"created": job.manifest.created + timedelta(seconds=1)})
    write_manifest(fleet.store, other)
    kept = sorted(fleet.store.keys(""))
    with pytest.raises(UnknownJobError, match="submitted at another time"):
        job.delete(running=running)
    assert sorted(fleet.store.keys("")) == kept
    assert fleet.ledger.jobs.names() == [job.name]


@pytest.mark.parametrize("running", [False, True])
def test_a_job_is_not_forgotten_if_the_store_is_not_its_own(
    fleet, job, redis_url, tmp_path, running
):
    job.cancel()
    with Fleet(broker=redis_url, store=str(tmp_path / "other")) as elsewhere:
        elsewhere.store.check_writable()
        with pytest.raises(UnknownJobError, match="Is this the store it was submitted to"):
            elsewhere.job(job.name).delete(running=running)
    assert fleet.ledger.jobs.names() == [job.name]


@pytest.mark.parametrize("cut_before", [1, 2])
def test_a_deletion_of_a_closed_job_that_was_cut_can_be_repeated(
    fleet, job, monkeypatch, cut_before
):
    job.cancel()
    deletions = []

    def fail_once(prefix: str, check: Callable[[], None]) -> None:
        deletions.append(prefix)
        if len(deletions) == cut_before:
            raise StoreError("503.")
        type(fleet.store).delete(fleet.store, prefix, check)

    monkeypatch.setattr(fleet.store, "delete", fail_once)
    with pytest.raises(StoreError):
        job.delete(running=False)
    assert fleet.ledger.jobs.names() == []
    job.check_deletable()
    job.delete(running=False)
    assert list(fleet.store.keys("")) == []


@pytest.mark.parametrize("name", ["", "..", "../outside", "/etc", "a/b", "a b", "."])
def test_what_cannot_be_a_job_s_name_is_no_job(fleet, name):
    with pytest.raises(UnknownJobError, match="not the name of a job"):
        fleet.job(name)


def test_deleting_a_job_that_nobody_knows_is_an_error_and_deletes_nothing(fleet):
    fleet.store.put("validations/record.json", b"{}")
    with pytest.raises(UnknownJobError, match="knows a job 'validations'"):
        fleet.job("validations").delete()
    assert list(fleet.store.keys("")) == ["validations/record.json"]


def test_sequences_without_ids_have_their_position(fleet):
    with pytest.warns(UserWarning, match="no worker serves"):
        by_position = fleet.submit(["MKTAYIAK", "GA"], model=MODEL)
    with pytest.warns(UserWarning, match="no worker serves"):
        assert fleet.submit({"0": "MKTAYIAK", "1": "GA"}, model=MODEL).name == by_position.name


def test_a_list_of_options_is_as_good_as_a_tuple(fleet, job):
    for options in ({"include": ["mean"], "layers": [-1]}, {"include": "mean", "layers": -1}):
        with pytest.warns(UserWarning, match="no worker serves"):
            again = fleet.submit(RECORDS, model=MODEL, priority="normal", **options)
        assert again.name == job.name


def test_sequences_of_two_letters_are_no_pairs(fleet):
    with pytest.warns(UserWarning, match="no worker serves"):
        assert fleet.submit(["MK"], model=MODEL).manifest.report.residues == 2


def test_an_id_with_a_space_is_refused_rather_than_cut(fleet):
    with pytest.raises(InputError, match=r"Record 2 \('my protein'\) has a space in its id"):
        fleet.submit({"P1": "MKT", "my protein": "MKT"}, model=MODEL)


def test_no_sequences_are_an_error_without_a_file(fleet):
    with pytest.raises(InputError, match="records is empty") as caught:
        fleet.submit({}, model=MODEL)
    assert caught.value.path is None


def test_what_was_changed_in_records_is_a_warning(fleet):
    records = {"P1": "MKTAYIAK", "P2": "MJ", "P3": "GA"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fleet.submit(records, model=MODEL, unknown="x", max_residues=5)
    texts = [str(warning.message) for warning in caught]
    assert texts[0].startswith("1 record longer than 5 residues: only that many")
    assert texts[1] == "1 record with unknown letters, embedded as X."


@pytest.mark.parametrize("options", [{"long": "truncate"}, {"long": "window"}])
def test_what_was_asked_for_is_no_warning(fleet, options):
    with pytest.warns(UserWarning, match="no worker serves"):  # an error if there were others
        job = fleet.submit(RECORDS, model=MODEL, max_residues=5, **options)
    assert job.manifest.report.long == 1


def test_a_job_that_is_not_there_is_an_error_at_once(fleet):
    with pytest.raises(UnknownJobError, match="has no job 'typo-123'"):
        fleet.job("typo-123").wait()


def test_a_fleet_is_named_by_keywords_alone():
    with pytest.raises(TypeError, match="positional"):
        Fleet("redis://localhost")


def test_a_fleet_with_a_setting_that_cannot_be_is_an_error_of_the_user():
    with pytest.raises(
        UserError, match=r"high_water \(or VIRNUCPRO_HIGH_WATER\): 0 is not a whole"
    ):
        Fleet(high_water=0)
    with pytest.raises(UserError, match=r"broker_url \(or VIRNUCPRO_BROKER_URL\): 5 is not a text"):
        Fleet(broker=5)


@pytest.mark.parametrize("tokens", [0, -1, 1.5, "many"])
def test_batches_of_no_tokens_are_an_error_of_the_user(fleet, tokens):
    with pytest.raises(UserError, match=f"batch_tokens: {tokens!r} is not a whole number above 0"):
        fleet.submit(RECORDS, model=MODEL, batch_tokens=tokens)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"include": ("median",)}, "include: Input should be 'mean', 'per_residue', 'bos'"),
        ({"include": None}, "include: Input should be 'mean'"),
        ({"include": ()}, "include: .* is empty"),
        ({"layers": "last"}, "layers: Input should be a valid integer"),
        ({"layers": (9,)}, "Layer 9: this model has layers 0 to 6"),
        ({"include": "per_residue", "long": "window"}, "cannot be combined with windows"),
        ({"max_residues": -1}, "max_residues: Input should be greater than 0"),
        ({"max_residue": 500}, "max_residue: Extra inputs are not permitted"),
        ({"on_instability": "stop"}, "on_instability: Input should be 'retry' or 'fail'"),
        ({"layers": (-1, -1)}, "layers: .* has duplicates"),
        ({"precision": "fp8"}, "precision: Input should be 'auto'"),
        ({"long": "cut"}, "long: Input should be 'error'"),
        ({"max_residues": 0}, "max_residues: Input should be greater than 0"),
        ({"overlap": 5}, "applies to windows only"),
        ({"priority": "urgent"}, "priority: Input should be 'high'"),
        ({"percision": "fp16"}, "percision: Extra inputs are not permitted"),
    ],
)
def test_an_option_that_cannot_be_is_an_error_of_the_user(fleet, options, text):
    with pytest.raises(UserError, match=text):
        fleet.submit(RECORDS, model=MODEL, **options)
    assert list(fleet.store.keys("")) == []


# --- a stream, with results that no worker made ---------------------------------------------------


def finish(job: Job) -> None:
    store_shard(job.fleet.store, job.manifest, 0)
    job.fleet.ledger.results.complete(ok(job.manifest.batch(0)))


@pytest.mark.parametrize("error", [RedisConnectionError("gone"), StoreError("503")])
def test_a_stream_outlives_a_redis_and_a_store_that_do_not_answer(job, monkeypatch, error):
    finish(job)
    settled, failures = Batches.settled, iter([error])

    def settled_at_the_second_try(*arguments):
        for error in failures:
            raise error
        return settled(*arguments)

    monkeypatch.setattr(Batches, "settled", settled_at_the_second_try)
    ((ids, vectors),) = job.stream(poll_seconds=0)
    assert ids == ["P1", "P2"]
    assert vectors.shape == (2, 4)


def test_a_stream_does_not_wait_for_a_shard_that_was_deleted(job):
    finish(job)
    job.fleet.store.delete(f"{job.name}/output/")
    with pytest.raises(ObjectNotFoundError):
        next(job.stream(poll_seconds=0))


def test_a_stream_of_finished_batches_keeps_the_job_going(fleet, monkeypatch):
    with pytest.warns(UserWarning, match="no worker serves"):
        job = fleet.submit([f"M{x}" for x in "LAGVSE"], model=MODEL, batch_tokens=4)
    for index in range(job.manifest.batches):
        store_shard(job.fleet.store, job.manifest, index)
        job.fleet.ledger.results.complete(ok(job.manifest.batch(index)))
    steps = []
    monkeypatch.setattr(Keeper, "step", lambda keeper: steps.append(keeper))
    assert len(list(job.stream(poll_seconds=0))) == job.manifest.batches > 2
    assert len(steps) == 1 + job.manifest.batches


def test_a_stream_of_a_cancelled_job_has_what_is_done_and_then_says_so(fleet):
    with pytest.warns(UserWarning, match="no worker serves"):
        job = fleet.submit([f"M{x}" for x in "LAGV"], model=MODEL, batch_tokens=4)
    assert job.manifest.batches > 1
    finish(job)
    job.cancel()
    stream = job.stream(poll_seconds=0)
    assert len(next(stream)[0]) > 0
    with pytest.raises(JobEndedError, match="was cancelled"):
        next(stream)


def test_a_stream_lets_another_keeper_act_once_it_is_left(fleet, job):
    finish(job)
    stream = job.stream()
    next(stream)
    locks = fleet.ledger.locks
    assert not locks.hold_keeping(fleet.store.url, "another", standby=True)
    stream.close()
    assert locks.hold_keeping(fleet.store.url, "another", standby=True)
