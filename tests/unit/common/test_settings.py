"""Settings and the broker: precedence, and the messages that are published."""

import ast
import base64
import json
import tempfile
import time
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from common.errors import UserError
from common.local.embedded_redis import redis_server
from common.model_source import ModelSource
from common.rungs import FIRST_RUNGS, Rung, ladder
from common.settings import Settings
from common.wire import celery_app as broker
from common.wire.celery_app import EMBED_TASK, ShownBatch, make_celery, publish, publish_next
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX, Queues, batch_queue, queue_name
from tests.support.jobs import TOKENS_PER_RECORD, manifest_of, retry_after, unstable


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    monkeypatch.delenv("VIRNUCPRO_BROKER_URL", raising=False)
    monkeypatch.delenv("VIRNUCPRO_STORE", raising=False)


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("VIRNUCPRO_BROKER_URL", "redis://environment")
    monkeypatch.setenv("VIRNUCPRO_STORE", "s3://environment")


def test_without_settings_the_broker_is_a_local_redis_and_there_is_no_store():
    settings = Settings.read()
    assert settings.broker_url == "redis://localhost:6379/0"
    assert settings.store is None


@pytest.mark.usefixtures("environment")
def test_the_environment_goes_before_the_default():
    settings = Settings.read()
    assert (settings.broker_url, settings.store) == ("redis://environment", "s3://environment")


@pytest.mark.usefixtures("environment")
def test_the_command_line_goes_before_the_environment():
    settings = Settings.read(broker="redis://given", store="s3://given")
    assert (settings.broker_url, settings.store) == ("redis://given", "s3://given")


@pytest.mark.usefixtures("environment")
def test_one_option_on_the_command_line_leaves_the_other_to_the_environment():
    settings = Settings.read(store="s3://given")
    assert (settings.broker_url, settings.store) == ("redis://environment", "s3://given")


def test_a_required_store_that_is_not_set_is_asked_for():
    with pytest.raises(UserError, match=r"name one, or set VIRNUCPRO_STORE.* submit --local"):
        Settings.read().required_store()
    assert Settings.read(store="folder").required_store() == "folder"


def test_whether_pods_are_marked_is_yes_or_no(monkeypatch):
    assert Settings.read().pod_costs is False
    monkeypatch.setenv("VIRNUCPRO_POD_COSTS", "true")
    assert Settings.read().pod_costs is True
    for text in ("maybe", ""):
        monkeypatch.setenv("VIRNUCPRO_POD_COSTS", text)
        with pytest.raises(UserError, match=r"VIRNUCPRO_POD_COSTS: .* give 1 or 0"):
            Settings.read()


def test_settings_do_not_show_the_password_of_the_broker():
    assert "s3cret" not in repr(Settings.read(broker="redis://:s3cret@host"))


# --- Celery -------------------------------------------------------------------------------------


def test_messages_that_celery_sends_are_in_the_queue_that_the_ledger_counts(ledger, redis_url):
    app = make_celery(redis_url, ["some.queue"])
    with app.producer_or_acquire() as producer:
        app.send_task("some.task", queue="some.queue", producer=producer)
    assert Queues(ledger.redis).length("some.queue") == 1


# --- batches ------------------------------------------------------------------------------------

MANIFEST = manifest_of([3, 5, 2])
MODEL = ModelSource.parse(MANIFEST.model)
RETRY = retry_after(MANIFEST, unstable(MANIFEST.batch(2)))


def test_a_ladder_s_first_queue_is_named_after_it_and_its_retries_queues_after_that():
    names = {rung: queue_name(MODEL, Rung.FP16, rung) for rung in ladder(Rung.FP16)}
    assert names == {
        "fp16": "random.esm2_t6_8M_UR50D.fp16",
        "selective_fp32": "random.esm2_t6_8M_UR50D.fp16.selective_fp32",
        "fp32": "random.esm2_t6_8M_UR50D.fp16.fp32",
    }


def test_no_queue_is_of_two_ladders():
    steps = [(first, rung) for first in FIRST_RUNGS for rung in ladder(first)]
    assert len({queue_name(MODEL, *step) for step in steps}) == len(steps) == 6


def test_every_batch_goes_to_the_queue_of_its_ladder_and_its_rung(ledger, redis_url):
    other = manifest_of([4], rung=Rung.BF16)
    last = retry_after(other, unstable(other.batch(0)))
    plain = manifest_of([4], rung=Rung.FP32).batch(0)
    batches = [MANIFEST.batch(0), RETRY, MANIFEST.batch(1), last, plain]
    assert publish(make_celery(redis_url, []), MODEL, iter(batches)) == 5
    keys = ledger.redis.keys(f"{KEY_PREFIX}{MODEL.queue}*")
    stem = f"{KEY_PREFIX}{MODEL.queue}."
    queued = {key.removeprefix(stem): ledger.redis.llen(key) for key in keys}
    assert queued == {"fp16": 2, "fp16.selective_fp32": 1, "bf16.fp32": 1, "fp32": 1}


def test_a_message_is_the_batch_and_the_task_that_embeds_it(redis, redis_url):
    publish(make_celery(redis_url, []), MODEL, [RETRY])
    (text,) = redis.lrange(f"{KEY_PREFIX}{MODEL.queue}.fp16.selective_fp32", 0, -1)
    message = json.loads(text)
    assert message["headers"]["task"] == EMBED_TASK
    _, arguments, _ = json.loads(base64.b64decode(message["body"]))
    assert Batch(**arguments) == RETRY


def test_a_message_has_what_celery_s_protocol_2_asks_for(redis, redis_url):
    publish(make_celery(redis_url, []), MODEL, [RETRY])
    (text,) = redis.lrange(f"{KEY_PREFIX}{MODEL.queue}.fp16.selective_fp32", 0, -1)
    message = json.loads(text)
    headers, properties = message["headers"], message["properties"]
    assert {"lang", "task", "id", "root_id", "parent_id", "group"} <= set(headers)
    assert headers["id"] == properties["correlation_id"]
    assert message["content-type"] == "application/json"


def test_flower_is_shown_the_job_the_batch_its_rung_and_its_size():
    shown = ast.literal_eval(str(ShownBatch.of(MANIFEST.batch(1))))
    tokens = 5 * TOKENS_PER_RECORD
    assert shown == {"job": MANIFEST.job, "batch": 1, "rung": "fp16", "rows": 5, "tokens": tokens}
    retry = ast.literal_eval(str(ShownBatch.of(RETRY)))
    assert retry == {"job": RETRY.job, "batch": 2, "rung": "selective_fp32", "rows": 1}


def test_a_thousand_messages_take_less_than_a_megabyte(redis, redis_url):
    batch = MANIFEST.batch(0)
    publish(make_celery(redis_url, []), MODEL, [batch] * 1000)
    assert redis.memory_usage(f"{KEY_PREFIX}{MODEL.queue}.fp16", samples=0) < 1e6


def test_redis_that_is_away_is_told_soon_and_used_again_when_it_is_back():
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        path = Path(folder, "redis.sock")
        app, started = make_celery(f"unix://{path}?db=0", []), time.monotonic()
        for _ in range(2):
            with pytest.raises(RedisError):
                publish(app, MODEL, [MANIFEST.batch(0)])
            with redis_server(path):
                assert publish(app, MODEL, [MANIFEST.batch(0)]) == 1
        assert time.monotonic() - started < 5


def test_batches_are_sent_in_their_order(redis, redis_url, monkeypatch):
    monkeypatch.setattr(broker, "PUBLISH_TOGETHER", 4)
    manifest = manifest_of([1] * 10)
    publish(make_celery(redis_url, []), MODEL, map(manifest.batch, range(10)))
    # Workers take from the right.
    texts = redis.lrange(f"{KEY_PREFIX}{MODEL.queue}.fp16", 0, -1)[::-1]
    bodies = [json.loads(base64.b64decode(json.loads(text)["body"])) for text in texts]
    assert [arguments["index"] for _, arguments, _ in bodies] == list(range(10))


def test_a_batch_can_be_published_as_the_next_one_to_be_taken(redis, redis_url):
    manifest = manifest_of([1] * 4)
    app, model = make_celery(redis_url, []), ModelSource.parse(manifest.model)
    first, *others = [manifest.batch(index) for index in range(manifest.batches)]
    publish(app, model, others)
    publish_next(app, redis, first)
    items = redis.lrange(f"{KEY_PREFIX}{batch_queue(first)}", 0, -1)
    bodies = [json.loads(base64.b64decode(json.loads(item)["body"])) for item in items]
    assert [body[1].get("index", 0) for body in reversed(bodies)] == [0, 1, 2, 3]


def test_nothing_to_publish_is_nothing_published(redis, redis_url):
    assert publish(make_celery(redis_url, []), MODEL, []) == 0
    assert redis.keys(f"{KEY_PREFIX}{MODEL.queue}*") == []
