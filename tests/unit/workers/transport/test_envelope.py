"""What a valid message is: what the guard lets through, what it refuses, and why."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.model_source import ModelSource
from common.wire.celery_app import EMBED_TASK, ShownBatch, task_arguments
from common.wire.messages import Batch
from common.wire.queues import batch_queue, queue_name
from common.wire.signing import MessageKeys
from tests.support.jobs import manifest_of
from tests.support.messages import body_of, queued_item, with_batch, with_body, with_values
from workers.transport.envelope import Refusal, check_message

BATCH = manifest_of([3]).batch(0)
MODEL = ModelSource.parse(BATCH.model)
QUEUE = queue_name(MODEL, BATCH.first_rung, BATCH.rung)
NO_KEYS, KEYS, OTHERS = MessageKeys(), MessageKeys.parse("k" * 16), MessageKeys.parse("o" * 16)

UUID_MARK = {"__type__": "uuid", "__value__": "no"}


@pytest.fixture
def item(redis, redis_url) -> bytes:
    """A signed message of this fleet."""
    return queued_item(redis, redis_url, BATCH, KEYS)


def reason(item: bytes, keys: MessageKeys = NO_KEYS) -> str:
    checked = check_message(item, keys)
    assert isinstance(checked, Refusal)
    return checked.reason


# --- valid messages -----------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [NO_KEYS, KEYS, MessageKeys(OTHERS.keys + KEYS.keys)])
def test_what_our_producer_sends_is_let_through(item, keys):
    passed = check_message(item, keys)
    assert Batch(**body_of(passed)[1]) == BATCH
    assert check_message(passed, keys) == passed


def test_a_message_without_a_signature_is_ours_where_there_is_no_key(redis, redis_url):
    assert isinstance(check_message(queued_item(redis, redis_url, BATCH), NO_KEYS), bytes)


def test_a_field_of_a_newer_producer_is_passed_on_and_signed_with_the_rest(item):
    newer = body_of(item)[1] | {"mood": {"good": [1]}}
    signed = with_values(with_batch(item, **newer), {("headers", "new"): 1})
    signed = with_values(signed, {("headers", "signature"): KEYS.headers(newer)["signature"]})
    assert body_of(check_message(signed, KEYS))[1] == newer


@pytest.mark.parametrize(
    "path",
    [("headers", "eta"), ("headers", "shadow"), ("headers", "chord"), ("properties", "headers")],
)
def test_nothing_of_a_message_reaches_celery_that_the_guard_does_not_know(item, path):
    assert check_message(with_values(item, {path: [{"odd": "value"}]}), KEYS) == check_message(
        item, KEYS
    )


@pytest.mark.parametrize("place", ["argsrepr", "kwargsrepr"])
def test_flower_is_shown_the_batch_that_was_checked_whatever_its_sender_says(item, place):
    passed = check_message(with_values(item, {("headers", place): "job other 9.fp16"}), KEYS)
    headers = json.loads(passed)["headers"]
    assert (headers["argsrepr"], headers["kwargsrepr"]) == ("", str(ShownBatch.of(BATCH)))


def test_no_task_is_sent_after_one(item):
    arguments, batch, _ = body_of(item)
    sequel = {"callbacks": [{"task": "x"}], "args": [1]}
    assert check_message(with_body(item, [arguments, batch, sequel]), KEYS) == check_message(
        item, KEYS
    )


# --- refused messages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("garbage", "expected"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (json.dumps(UUID_MARK).encode(), "not JSON"),
        (b"[1, 2]", r"it is \[1, 2\], which is not a JSON object"),
        (b"[" + b"[]," * 400_000 + b"[]]", "too long: 1,200,004 bytes"),
        (b"null", "it is None, which is not a JSON object"),
        (b"{}", "content-type is missing"),
    ],
)
def test_what_is_no_message_at_all_is_refused(garbage, expected):
    assert_matches(expected, reason(garbage))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("content-type",), "application/x-python-serialize", "content-type is 'application/x-"),
        (("content-encoding",), "binary", "content-encoding is 'binary'"),
        (("headers",), None, "headers is None"),
        (("headers", "task"), "tasks.add", "headers.task is 'tasks.add': .*'virnucpro.embed'"),
        (("headers", "id"), [1], r"headers.id is \[1\]"),
        (("headers", "any"), UUID_MARK, "JSON: uuid"),
        (("properties",), [], "properties is"),
        (("properties", "body_encoding"), None, "properties.body_encoding is None"),
        (("properties", "delivery_tag"), {}, "properties.delivery_tag is"),
        (("properties", "delivery_info"), {}, "properties.delivery_info.exchange is missing"),
        (("properties", "priority"), float("inf"), "properties.priority is inf"),
        (("body",), "*no base64*", r"body is '\*no base64\*'"),
        (("body",), "é", "body is 'é'"),
        (("body",), 7, "body is 7: not a string"),
        (("body",), "", "body is '': not JSON"),
    ],
)
def test_a_message_in_another_form_is_refused_with_its_place(item, path, value, expected):
    assert_matches(f"not .*{expected}", reason(with_values(item, {path: value})))


@pytest.mark.parametrize("body", [b"\xff", [], [[], {}], [[1], {}, {}], [[], [], {}], {"a": 1}])
def test_a_body_in_another_form_is_refused(item, body):
    assert_matches("not a task of this fleet: body", reason(with_body(item, body)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"version": 2}, "version is 2: Input should be 1"),
        ({"index": -1}, "index is -1"),
        ({"rung": "fp8"}, "rung is 'fp8'"),
        ({"job": None}, "job is None"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(item, values, expected):
    assert_matches(
        f"not a batch that this version knows: {expected}", reason(with_batch(item, **values))
    )


def test_a_message_without_a_batch_is_refused(item):
    assert_matches("index is missing", reason(with_body(item, [[], {"job": "j"}, {}])))


def test_a_message_that_is_not_signed_is_refused_where_there_is_a_key(redis, redis_url):
    checked = check_message(queued_item(redis, redis_url, BATCH), KEYS)
    assert checked.batch == BATCH
    assert_matches("not signed: VIRNUCPRO_MESSAGE_KEY is not set where", checked.reason)


@pytest.mark.parametrize("signature", ["", "0" * 64, "é"])
def test_a_signature_that_is_none_is_refused(item, signature):
    forged = with_values(item, {("headers", "signature"): signature})
    assert_matches("its signature is wrong", reason(forged, KEYS))


def test_a_message_of_another_key_or_that_was_changed_is_refused(item):
    assert_matches("its signature is wrong", reason(item, OTHERS))
    assert_matches("its signature is wrong", reason(with_batch(item, index=1), KEYS))


@pytest.mark.parametrize("model", ["no_such_model", "", "random:", "relative/path"])
def test_a_message_of_an_unknown_model_is_refused(item, model):
    assert "model" in reason(with_batch(item, model=model), NO_KEYS)


# --- whatever it is -----------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
envelope = {"content-type": "application/json", "content-encoding": "utf-8"}


@pytest.mark.parametrize("value", [10**400, float("nan"), -0.0, 1e22, "é\x00😀", [[{}]], True])
def test_a_value_is_passed_on_as_it_is_signed(item, value):
    batch = body_of(item)[1] | {"more": value}
    signed = {("headers", "signature"): KEYS.headers(batch)["signature"]}
    passed = check_message(with_values(with_batch(item, **batch), signed), KEYS)
    assert check_message(passed, KEYS) == passed


@given(st.binary())
@example(b"\xef\xbb\xbf{}")
def test_no_bytes_make_it_raise(item):
    assert isinstance(check_message(item, KEYS), Refusal)


@given(st.dictionaries(st.sampled_from(["headers", "properties", "body"]), anything), anything)
def test_no_json_makes_it_raise(message, other):
    assert isinstance(check_message(json.dumps(envelope | message).encode(), KEYS), Refusal)
    assert isinstance(check_message(json.dumps(other).encode(), KEYS), Refusal)


odd = anything | st.sampled_from(
    [10**400, -1, float("nan"), float("inf"), "\0", "../x", "/etc/passwd", "x" * 10_000, [[[[]]]]]
)
ARGUMENTS = task_arguments(BATCH)
MESSAGE = with_body(
    json.dumps(
        envelope
        | {
            "headers": {"task": EMBED_TASK, "id": "i"},
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": "t",
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
            },
        }
    ).encode(),
    [[], ARGUMENTS, {}],
)
PLACES = (
    *[("headers", name) for name in ("task", "id", "argsrepr", "kwargsrepr", "signature")],
    *[("properties", name) for name in ("body_encoding", "delivery_tag", "priority")],
    *[("properties", "delivery_info", name) for name in ("exchange", "routing_key")],
    *[("content-type",), ("content-encoding",), ("body",)],
)


def test_the_message_of_these_tests_is_valid():
    assert isinstance(check_message(MESSAGE, NO_KEYS, QUEUE), bytes)


@given(st.dictionaries(st.sampled_from(PLACES), odd, max_size=2), st.sampled_from([NO_KEYS, KEYS]))
def test_no_value_in_an_envelope_makes_it_raise(values, keys):
    checked = check_message(with_values(MESSAGE, values), keys, QUEUE)
    assert isinstance(checked, Refusal | bytes)


@given(st.dictionaries(st.sampled_from(sorted(ARGUMENTS)), odd, max_size=3))
def test_no_value_in_a_batch_makes_it_raise_and_what_passes_is_a_batch_of_its_queue(values):
    checked = check_message(with_batch(MESSAGE, **values), NO_KEYS, QUEUE)
    if isinstance(checked, bytes):
        assert batch_queue(Batch(**body_of(checked)[1])) == QUEUE


@pytest.mark.parametrize("depth", [10, 127, 128, 1000, 100_000])
def test_no_depth_makes_it_raise(depth):
    deep = b"[" * depth + b"]" * depth
    body = b'[[], {"job": %s}, {}]' % deep
    assert isinstance(check_message(with_body(MESSAGE, body), NO_KEYS), Refusal)


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text
