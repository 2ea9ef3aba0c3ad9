"""Invalid messages in a worker's queue: they become dead letters, and the worker survives."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.ledger.events import EventKind
from common.wire.dead_letters import DeadLetter, DeadLetters
from common.wire.queues import KEY_PREFIX
from common.wire.signing import MessageKeys
from tests.support.jobs import manifest_of
from tests.support.messages import queued_item, with_batch, with_body, with_values
from tests.support.processes import Fleet, running_fleet, wait_until

MODEL = "random:esm2_t6_8M_UR50D"
KEY = "0123456789abcdef"
PICKLE = "application/x-python-serialize"
BATCH = manifest_of([3], model=MODEL).batch(0)


@pytest.fixture
def signed_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet with a key; no worker yet."""
    with (
        tempfile.TemporaryDirectory(prefix="fleet-") as folder,
        running_fleet(
            Path(folder), f"file://{tmp_path}/store", VIRNUCPRO_MESSAGE_KEY=KEY
        ) as running,
    ):
        yield running


def strange_messages(fleet: Fleet) -> list[tuple[str, bytes]]:
    """Return messages, each with the expected reason of its refusal."""
    redis = fleet.ledger.redis
    ours = queued_item(redis, fleet.broker_url, BATCH, MessageKeys.parse(KEY))
    return [
        (r"^not JSON", b"garbage"),
        (r"^not JSON", b'{"body": "\xff"}'),
        (r"it is \['a', 'list'\], which is not a JSON object", b'["a", "list"]'),
        (r"body is '\*\*\*'", with_values(ours, {("body",): "***"})),
        (r"body is .*: not JSON", with_body(ours, b"\x80\x04.")),
        (r"content-type is 'application/x-py", with_values(ours, {("content-type",): PICKLE})),
        (r"headers.task is 'tasks.add'", with_values(ours, {("headers", "task"): "tasks.add"})),
        (r"index is missing", with_body(ours, [[], {"job": "j"}, {}])),
        (r"^not signed", queued_item(redis, fleet.broker_url, BATCH)),
        (r"^its signature is wrong", with_batch(ours, index=1)),
    ]


def test_what_is_none_of_ours_is_buried_and_the_same_worker_goes_on(
    signed_fleet, examples, tmp_path
):
    ledger = signed_fleet.ledger
    strange = strange_messages(signed_fleet)
    with signed_fleet.workers(MODEL, tmp_path) as (log,):
        (worker,) = ledger.workers.all()  # its process's number is a part of its name
        queue = worker.queues[0]
        for _, message in strange:
            ledger.redis.lpush(f"{KEY_PREFIX}{queue}", message)
        wait_until(lambda: DeadLetters(ledger.redis).count() == len(strange), 30)
        letters = DeadLetters(ledger.redis).latest()[::-1]
        for (reason, _), letter in zip(strange, letters, strict=True):
            assert re.search(reason, letter.reason), letter
            assert (letter.queue, letter.worker) == (queue, worker.name)
        assert letters[0].message == "garbage"
        assert letters[1].message == r'{"body": "\xff"}'

        done = signed_fleet.producer(
            "submit", examples, "--model", MODEL, "-o", tmp_path / "out.h5"
        )
        assert done.returncode == 0, done.stderr
        assert [w.name for w in ledger.workers.all()] == [worker.name]
        assert not ledger.redis.exists(f"{KEY_PREFIX}{queue}", f"{KEY_PREFIX}unacked")
    events = [json.loads(text) for text in re.findall(r"\{\"time\".*\}", log.read_text())]
    buried = [event for event in events if event["event"] == EventKind.DEAD_LETTER]
    assert len(buried) == len(strange)
    assert {event["worker"] for event in buried} == {worker.name}
    assert buried[-1]["job"] == BATCH.job

    status = signed_fleet.producer("status").stdout
    assert f"{len(strange)} messages that no worker could read" in status
    assert "its signature is wrong" in status
    lines = signed_fleet.producer("dead-letters").stdout.splitlines()
    assert [DeadLetter.model_validate_json(line) for line in lines] == letters[::-1]
    assert signed_fleet.producer("dead-letters", "--clear").returncode == 0
    assert signed_fleet.producer("dead-letters").stdout == ""
    assert "no worker could read" not in signed_fleet.producer("status").stdout
