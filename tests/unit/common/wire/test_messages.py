"""Messages: small, frozen, and equal after a round trip as JSON; and retries."""

import pytest
from pydantic import ValidationError

from common.job.layout import input_key
from common.model_source import RANDOM_PREFIX
from common.model_specs import MODELS
from common.rungs import Rung
from common.wire.messages import Batch, BatchResult, Instability, NonFinite, Status, retry_of
from tests.support.jobs import failed, manifest_of, retry_after, unstable

BATCH = Batch(
    job="in-0123456789ab",
    index=3,
    first_rung=Rung.FP16,
    rung=Rung.FP16,
    model="esm2_t6_8M_UR50D",
    key="in-0123456789ab/input/0000003.fasta",
    records=17,
)
NOTHING_FINITE = NonFinite(nan=3, inf=1, finite_min=None, finite_max=None)
SOME_FINITE = NonFinite(nan=1234, inf=0, finite_min=-1e-300, finite_max=65504.0)
INSTABILITY = Instability(row=2**40, id="sp|P1 é", length=12345, seen={Rung.FP16: NOTHING_FINITE})
RETRY = BATCH.model_copy(
    update={"rung": Rung.SELECTIVE_FP32, "previous_rung": Rung.FP16, "records": 1}
)
RESULT = BatchResult(
    job=BATCH.job,
    index=3,
    rung=Rung.FP16,
    status=Status.NUMERICAL_INSTABILITY,
    worker="host:gpu0",
    precision=Rung.FP16,
    records=16,
    tokens=4321,
    seconds=0.1 + 0.2,
    unstable=(
        INSTABILITY,
        Instability(
            row=0, id="", length=0, seen={Rung.FP16: SOME_FINITE, Rung.FP32: NOTHING_FINITE}
        ),
    ),
    next=Rung.SELECTIVE_FP32,
    error="é\n'\"",
    stops_job=True,
)

parts = pytest.mark.parametrize("message", [BATCH, RETRY, NOTHING_FINITE, INSTABILITY, RESULT])
messages = pytest.mark.parametrize("message", [BATCH, RETRY, RESULT])


@parts
def test_a_message_cannot_be_changed(message):
    name = next(iter(type(message).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(message, name, getattr(message, name))


@parts
def test_a_message_is_the_same_after_a_journey_as_json(message):
    assert type(message).model_validate_json(message.model_dump_json()) == message
    assert type(message)(**message.model_dump(mode="json")) == message


@parts
def test_a_field_of_a_newer_version_is_passed_over(message):
    newer = message.model_dump(mode="json") | {"mood": "good"}
    assert type(message).model_validate(newer) == message


@messages
def test_another_version_is_refused(message):
    with pytest.raises(ValidationError, match="version"):
        type(message)(**(message.model_dump() | {"version": 2}))


@pytest.mark.parametrize(
    "change", [{"index": -1}, {"records": 0}, {"first": None}, {"rung": "fp8"}, {"model": None}]
)
def test_a_batch_that_cannot_be_is_refused(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        Batch(**(BATCH.model_dump() | change))


def test_a_message_of_an_older_producer_is_of_a_batch_s_first_rung():
    older = BATCH.model_dump(mode="json", exclude={"previous_rung"})
    assert Batch(**older).previous_rung is None


def test_a_result_of_an_older_worker_quarantines_what_it_could_not_embed():
    older = RESULT.model_dump(mode="json", exclude={"previous_rung", "next", "stops_job"})
    result = BatchResult(**older)
    assert (result.next, result.stops_job) == (None, False)
    assert result.quarantined == RESULT.unstable


@pytest.mark.parametrize("name", MODELS)
def test_the_message_of_the_largest_batch_of_the_longest_name_is_small(name):
    job = f"{'n' * 40}-{'0' * 12}"
    batch = Batch(
        job=job,
        index=9_999_999,
        first_rung=Rung.SELECTIVE_FP32,
        rung=Rung.SELECTIVE_FP32,
        previous_rung=Rung.SELECTIVE_FP32,
        model=RANDOM_PREFIX + name,
        key=input_key(job, 9_999_999),
        records=3_000_000,
        created=1767323045.678901,
    )
    assert len(batch.model_dump_json()) < 400


# --- what is said of rows that are not finite ---------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (NOTHING_FINITE, "3 NaN, 1 Inf, no finite value"),
        (SOME_FINITE, "1,234 NaN, 0 Inf, finite values from -1e-300 to 6.55e+04"),
        (NonFinite(nan=0, inf=9, finite_min=0, finite_max=0), "9 Inf, finite values from 0 to 0"),
    ],
)
def test_what_was_seen_is_said_in_a_line(seen, text):
    assert str(seen).endswith(text)


def test_a_row_is_named_with_what_each_precision_saw_of_it_in_order():
    seen = {Rung.FP16: SOME_FINITE, Rung.SELECTIVE_FP32: NOTHING_FINITE}
    assert str(Instability(row=7, id="sp|P1", length=34350, seen=seen)) == (
        f"row 7 'sp|P1' (34,350 letters): fp16: {SOME_FINITE}; selective_fp32: {NOTHING_FINITE}"
    )


def test_a_row_of_which_nothing_more_is_known_is_not_finite():
    assert str(Instability(row=7, id="a", length=3)) == "row 7 'a' (3 letters): not finite"


def test_rows_are_quarantined_where_nothing_comes_next():
    assert RESULT.quarantined == ()
    assert RESULT.model_copy(update={"next": None}).quarantined == RESULT.unstable


# --- a retry ------------------------------------------------------------------------------------

MANIFEST = manifest_of([3, 5])


def test_a_retry_is_the_batch_again_with_its_unstable_rows_alone():
    result = unstable(MANIFEST.batch(1), 4, 6)
    retry = retry_after(MANIFEST, result)
    assert (retry.rung, retry.previous_rung) == (Rung.SELECTIVE_FP32, Rung.FP16)
    assert retry.records == 2
    same = ("job", "index", "first_rung", "model", "key", "created")
    assert all(getattr(retry, name) == getattr(MANIFEST.batch(1), name) for name in same)
    assert Batch.model_validate_json(retry.model_dump_json()) == retry


def test_a_retry_of_a_retry_is_after_that():
    first = unstable(MANIFEST.batch(0), 0, 1, 2)
    second = unstable(retry_after(MANIFEST, first), 2)
    last = retry_after(MANIFEST, second)
    assert (last.rung, last.previous_rung, last.records) == (Rung.FP32, Rung.SELECTIVE_FP32, 1)


def test_a_retry_made_from_a_retry_is_the_one_made_from_its_batch():
    """The worker, which has only the message, and the ledger make equal retries."""
    first = unstable(MANIFEST.batch(0), 0, 1, 2)
    retry = retry_of(MANIFEST.batch(0), first)
    second = unstable(retry, 2)
    assert retry_of(retry, second) == retry_after(MANIFEST, second)
    assert retry_of(retry, second).first_rung is Rung.FP16


def test_a_retry_of_bf16_is_in_fp32():
    manifest = manifest_of([3], rung=Rung.BF16)
    retry = retry_after(manifest, unstable(manifest.batch(0)))
    assert (retry.first_rung, retry.rung, retry.previous_rung) == (Rung.BF16, Rung.FP32, Rung.BF16)


@pytest.mark.parametrize(
    "result",
    [failed(MANIFEST.batch(0)), unstable(MANIFEST.batch(0), precision=Rung.FP32)],
    ids=["failed", "quarantined"],
)
def test_what_has_no_next_rung_cannot_be_retried(result):
    with pytest.raises(AssertionError):
        retry_after(MANIFEST, result)
