"""Signatures: only a key's owner can sign, and a changed message is rejected."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.settings import Settings
from common.wire.signing import SIGNATURE, MessageKeys, sign

OLD, NEW = "o" * 16, "n" * 32
MESSAGE = {"job": "é", "index": 3, "created": 1767323045.678901, "after": None}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
messages = st.dictionaries(st.text(), values, max_size=5)


def test_a_signature_is_the_hmac_of_the_one_form_of_json():
    text = rb'{"after":null,"created":1767323045.678901,"index":3,"job":"\u00e9"}'
    expected = hmac.new(OLD.encode(), text, hashlib.sha256).hexdigest()
    assert MessageKeys.parse(OLD).headers(MESSAGE) == {SIGNATURE: expected}


@given(messages)
def test_a_message_is_verified_after_a_journey_as_json_in_whatever_order(message):
    keys = MessageKeys.parse(OLD)
    arrived = json.loads(json.dumps(dict(reversed(message.items())), indent=1))
    assert keys.verify(arrived, keys.headers(message)[SIGNATURE])


@pytest.mark.parametrize("change", [{"index": 4}, {"index": "3"}, {"more": 1}])
def test_a_message_that_was_changed_is_not_verified(change):
    keys = MessageKeys.parse(OLD)
    assert not keys.verify(MESSAGE | change, keys.headers(MESSAGE)[SIGNATURE])


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_else_stands_for_a_signature_is_wrong(signature):
    assert not MessageKeys.parse(OLD).verify(MESSAGE, signature)


def test_of_several_keys_the_first_signs_and_all_verify():
    keys = MessageKeys.parse(f"{NEW}, {OLD}")
    assert keys.headers(MESSAGE) == {SIGNATURE: sign(MESSAGE, NEW.encode())}
    assert keys.verify(MESSAGE, sign(MESSAGE, OLD.encode()))
    assert not MessageKeys.parse(NEW).verify(MESSAGE, sign(MESSAGE, OLD.encode()))


def test_without_a_key_nothing_is_signed():
    keys = MessageKeys()
    assert not keys
    assert str(keys).startswith("Messages are neither signed nor checked")
    assert keys.headers(MESSAGE) == {}


@pytest.mark.parametrize("text", ["short", ",", "", " ", "\n", f"{OLD},", f"{OLD},short"])
def test_a_key_that_could_be_guessed_is_refused_and_not_shown(text):
    with pytest.raises(UserError, match=r"VIRNUCPRO_MESSAGE_KEY: .* openssl") as caught:
        MessageKeys.parse(text)
    assert "short" not in str(caught.value)


def test_the_keys_of_the_environment_are_shown_nowhere(monkeypatch):
    monkeypatch.setenv("VIRNUCPRO_MESSAGE_KEY", f"{NEW},{OLD}")
    settings = Settings.read()
    assert settings.message_keys() == MessageKeys((NEW.encode(), OLD.encode()))
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert OLD not in shown
    for shown in (repr(settings.message_keys()), str(settings.message_keys())):
        assert OLD not in shown
    assert settings.message_keys().signs_with in str(settings.message_keys())


@pytest.mark.parametrize("text", ["", " ", "short", ","])
def test_every_process_refuses_a_key_that_is_empty_or_short(monkeypatch, text):
    monkeypatch.setenv("VIRNUCPRO_MESSAGE_KEY", text)
    with pytest.raises(UserError, match="VIRNUCPRO_MESSAGE_KEY"):
        Settings.read()


def test_an_environment_without_a_key_has_none(monkeypatch):
    monkeypatch.delenv("VIRNUCPRO_MESSAGE_KEY", raising=False)
    assert Settings.read().message_keys() == MessageKeys()
