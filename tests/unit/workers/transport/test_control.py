"""Broadcasts of Celery's remote control: questions are answered, all else is refused."""

import json
from base64 import b64encode
from typing import Any

import pytest
from celery.worker.control import Panel
from hypothesis import given
from hypothesis import strategies as st

from workers.transport.control import QUESTIONS, check_broadcast
from workers.transport.envelope import Refusal


def broadcast(command: Any, **values: Any) -> bytes:
    """Return a broadcast as kombu writes it."""
    return json.dumps(
        {
            "body": b64encode(json.dumps(command).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"clock": 1, "expires": None},
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "t",
            },
            **values,
        }
    ).encode()


PING = {
    "method": "ping",
    "arguments": {},
    "destination": None,
    "pattern": None,
    "matcher": None,
    "ticket": "t",
    "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "r"},
}


@pytest.mark.parametrize("method", sorted(QUESTIONS))
def test_a_question_is_passed_on(method):
    checked = check_broadcast(broadcast(PING | {"method": method}))
    assert isinstance(checked, bytes)
    assert check_broadcast(checked) == checked


def test_questions_are_all_of_celery_s_that_change_nothing():
    kinds = {name: info.type for name, info in Panel.meta.items()}
    assert {name for name in QUESTIONS if kinds.get(name) == "control"} == {
        *("enable_events", "heartbeat")  # they change nothing
    }


@pytest.mark.parametrize("order", ["shutdown", "cancel_consumer", "pool_restart", "hello", "", "é"])
def test_an_order_is_refused(order):
    refusal = check_broadcast(broadcast(PING | {"method": order}))
    assert isinstance(refusal, Refusal)
    assert "do not obey" in refusal.reason


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"",
        b"[" * 3000,
        b'{"__type__": "uuid", "__value__": 5}',
        broadcast([]),
        broadcast({}),
        broadcast(PING | {"destination": 5}),
        broadcast(PING | {"matcher": "pcre", "pattern": "(a+)+$"}),
        broadcast(PING | {"reply_to": {"exchange": "", "routing_key": "virnucpro"}}),
        broadcast(PING, properties=5),
        broadcast(PING, body="***"),
    ],
)
def test_what_is_no_broadcast_is_refused(data):
    assert isinstance(check_broadcast(data), Refusal)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary() | st.dictionaries(st.sampled_from([*PING]), anything).map(broadcast))
def test_nothing_makes_the_check_raise(data):
    assert isinstance(check_broadcast(data), Refusal | bytes)
