"""Nothing that may be a password is shown: in a message, a traceback or a ``repr``."""

import traceback

import pytest

from common.errors import UserError
from common.settings import Settings
from common.store import open_store
from common.wire.address import RedisAddress, without_password
from common.wire.first_contact import check_usable
from tests.support.secrets import ADDRESSES, ENDPOINTS, SECRET, STORES


@pytest.mark.parametrize("form", ADDRESSES)
def test_an_address_of_redis_shows_nothing_but_host_and_port(form):
    url = form.format(SECRET)
    shown = [without_password(url), repr(Settings.read(broker=url))]
    try:
        address = RedisAddress.parse(url)
    except UserError as error:
        shown += [*traceback.format_exception(error), repr(error)]
    else:
        shown += [str(address), repr(address)]
    assert SECRET not in "".join(shown)


def test_a_redis_that_does_not_answer_is_named_without_its_login():
    with pytest.raises(UserError) as caught:
        check_usable(RedisAddress.parse(f"redis://{SECRET}:{SECRET}@127.0.0.1:1"))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("form", STORES)
def test_a_store_with_a_login_is_refused_and_not_shown(form):
    with pytest.raises(UserError) as caught:
        open_store(form.format(SECRET))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("form", ENDPOINTS)
def test_an_endpoint_with_a_login_is_refused_and_not_shown(monkeypatch, form, variable):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv(variable, form.format(SECRET))
    with pytest.raises(UserError, match=f"{variable} is not of the form") as caught:
        open_store("s3://bucket/prefix")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
)
@pytest.mark.parametrize("space", ["{}\n", "{} ", "\t{}", "{}\r\n", "a {}"])
def test_a_key_of_s3_with_white_space_is_refused_and_not_shown(monkeypatch, variable, space):
    """botocore would say: Invalid header value b'AWS4-HMAC-SHA256 Credential=…."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, space.format(SECRET))
    with pytest.raises(UserError, match=f"{variable} has a space or the end of a line") as caught:
        open_store("s3://bucket/prefix").check_exists()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_endpoint_with_a_login_in_the_configuration_is_refused_and_not_shown(
    monkeypatch, tmp_path
):
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(variable, raising=False)
    config = tmp_path / "config"
    config.write_text(f"[default]\nregion = us-east-1\nendpoint_url = http://u:{SECRET}@h:1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(UserError, match="configuration of AWS") as caught:
        open_store("s3://bucket/prefix")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
