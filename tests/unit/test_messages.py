"""Messages: small, frozen, and the same after a journey as JSON."""

import pytest
from pydantic import ValidationError

from common.layout import input_key
from common.messages import Batch, BatchResult, Instability, Status
from common.modeltable import MODELS, RANDOM_PREFIX
from common.rungs import Rung

BATCH = Batch(
    job="in-0123456789ab",
    index=3,
    rung=Rung.FP16,
    model="esm2_t6_8M_UR50D",
    key="in-0123456789ab/input/0000003.fasta",
    records=17,
    tokens=4321,
)
INSTABILITY = Instability(row=2**40, nan=3, inf=1, finite_min=None, finite_max=None)
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
    unstable=(INSTABILITY, INSTABILITY.model_copy(update={"finite_min": -1e-300})),
    error="é\n'\"",
)

messages = pytest.mark.parametrize("message", [BATCH, INSTABILITY, RESULT])


@messages
def test_a_message_cannot_be_changed(message):
    with pytest.raises(ValidationError, match="frozen"):
        message.version = 1


@messages
def test_a_message_is_the_same_after_a_journey_as_json(message):
    assert type(message).model_validate_json(message.model_dump_json()) == message
    assert type(message)(**message.model_dump(mode="json")) == message


@messages
def test_a_field_of_a_newer_version_is_passed_over(message):
    newer = message.model_dump(mode="json") | {"mood": "good"}
    assert type(message).model_validate(newer) == message


@messages
def test_another_version_is_refused(message):
    with pytest.raises(ValidationError, match="version"):
        type(message)(**(message.model_dump() | {"version": 2}))


@pytest.mark.parametrize(
    "change", [{"index": -1}, {"records": 0}, {"tokens": 0}, {"rung": "fp8"}, {"model": None}]
)
def test_a_batch_that_cannot_be_is_refused(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        Batch(**(BATCH.model_dump() | change))


@pytest.mark.parametrize("name", MODELS)
def test_the_message_of_the_largest_batch_of_the_longest_name_is_small(name):
    job = f"{'n' * 40}-{'0' * 12}"
    batch = Batch(
        job=job,
        index=9_999_999,
        rung=Rung.SELECTIVE_FP32,
        model=RANDOM_PREFIX + name,
        key=input_key(job, 9_999_999),
        records=3_000_000,
        tokens=3_000_000,
    )
    assert len(batch.model_dump_json()) < 400
