"""The address of Redis: every spelling, both clients made from one, and no password shown."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.redis import Channel

from common.errors import UserError
from common.paths import user_path
from common.wire.address import TLS_PARAMETERS, RedisAddress, without_password
from common.wire.celery_app import make_celery
from common.wire.lookups import BOUNDED
from common.wire.redis_client import redis_client

TLS = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", RedisAddress()),
        ("redis://host", RedisAddress("host")),
        (" redis://host\n", RedisAddress("host")),
        ("REDIS://host:1/2/", RedisAddress("host", 1, db=2)),
        ("redis://host?db=5", RedisAddress("host", db=5)),
        ("redis://host/5?db=5", RedisAddress("host", db=5)),
        ("redis://[::1]:7/5", RedisAddress("::1", 7, db=5)),
        ("redis:///5", RedisAddress(db=5)),
        ("redis://:pw@host", RedisAddress("host", password="pw")),
        ("redis://me@host", RedisAddress("host", username="me")),
        ("redis://me:p%2Fw%40%25@host", RedisAddress("host", username="me", password="p/w@%")),
        (
            "redis://host?username=me&password=p%26w",
            RedisAddress("host", 6379, None, 0, "me", "p&w"),
        ),
        ("redis://me:pw@host?password=pw", RedisAddress("host", username="me", password="pw")),
        ("unix:///run/redis.sock", RedisAddress(socket="/run/redis.sock")),
        ("unix:///run/a%20b.sock?db=3", RedisAddress(socket="/run/a b.sock", db=3)),
        ("unix://:PW@/run/sock", RedisAddress(socket="/run/sock", password="PW")),
        (
            "unix:///sock?password=PW&db=3&username=me",
            RedisAddress(socket="/sock", db=3, username="me", password="PW"),
        ),
        ("rediss://host", RedisAddress("host", tls=TLS)),
        (
            "rediss://host?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false",
            RedisAddress("host", tls={"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ),
        (
            "rediss://host?ssl_ca_certs=~/ca.pem&ssl_certfile=c.pem&ssl_keyfile=/k.pem",
            RedisAddress(
                "host",
                tls={
                    **TLS,
                    "ssl_ca_certs": str(user_path("~/ca.pem")),
                    "ssl_certfile": "c.pem",
                    "ssl_keyfile": "/k.pem",
                },
            ),
        ),
    ],
)
def test_every_spelling_of_an_address_is_read(url, address):
    assert RedisAddress.parse(url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "The address of Redis is empty: it has no redis://"),
        ("localhost:6379", "localhost:6379: it has no redis://.* before it. Write redis://USER"),
        ("me:s3cret@host:1", r"\*\*\*@host:1: it has no redis://"),
        ("http://host", "http://host: only redis://, rediss:// and unix://"),
        ("redis+socket:///run/sock", "only redis://, rediss:// and unix://"),
        ("sentinel://host:26379", "Sentinel and Cluster are not supported: name the one server"),
        ("redis+sentinel://host/primary", "Sentinel and Cluster are not supported"),
        ("rediss-cluster://host", "Sentinel and Cluster are not supported"),
        ("redis://host/name", "its database is not one number"),
        ("redis://host/1/2", "its database is not one number"),
        ("redis://host/-1", "its database is not one number"),
        ("redis://host?db=", "its database is not one number"),
        ("redis://host/1?db=2", "its database is not one number"),
        ("redis://host?timeout=5", "after . may be, each once .*: db, username, password"),
        ("redis://host?ssl_cert_reqs=none", "after . may be, each once .*: db, username, password"),
        ("redis://host?db=1&db=2", "after . may be, each once"),
        ("redis://me:a@host?username=you", "it has two usernames"),
        ("redis://:s3cret@host?password=other", "it has two passwords"),
        ("redis://a,b", "no valid host and port"),
        ("redis://a:1,b:2", "no valid host and port"),
        ("redis://a;redis://b", "no valid host and port"),
        ("redis://host:0", "no valid host and port"),
        ("redis://host:99999", "no valid host and port"),
        ("redis://::1:6379", "an IPv6 address in brackets"),
        ("redis://:a/s3cret@host", "/ as %2F"),
        ("redis://:a#s3cret@host", "# as %23"),
        ("redis://:a[s3cret@host", "no valid host and port"),
        ("redis://host:s3cret", "no valid host and port"),
        ("redis://host?password=a&s3cret", "with = and &"),
        ("redis://ho st", "no valid host"),
        ("redis://host\0", "a control character"),
        ("unix://run/redis.sock", "the whole path of a socket, after three slashes"),
        ("unix://", "the whole path of a socket, after three slashes"),
        ("unix:///sock?ssl_cert_reqs=none", "after . may be, each once"),
        ("rediss://host?ssl_cert_reqs=no", "ssl_cert_reqs is one of required, optional, none"),
        ("rediss://host?ssl_check_hostname=maybe", "ssl_check_hostname is true or false"),
        ("rediss://host?ssl_ca_certs=", "names no file"),
    ],
)
def test_another_address_is_refused_in_a_sentence_without_its_password(url, message):
    with pytest.raises(UserError, match=message) as caught:
        RedisAddress.parse(url)
    assert "Write redis://USER:PASSWORD@HOST:6379/0" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__  # a traceback would quote the URL
    assert "s3cret" not in without_password(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "redis://host:6379/0"),
        ("redis://[::1]/3", "redis://[::1]:6379/3"),
        ("unix:///run/redis.sock?db=0", "unix:///run/redis.sock?db=0"),
        ("redis://user@host", "redis://***@host:6379/0"),
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("rediss://user:secret@host/0", "rediss://***@host:6379/0"),
        ("redis://host?password=secret", "redis://***@host:6379/0"),
        ("unix://user:secret@/run/redis.sock", "unix://***@/run/redis.sock?db=0"),
        ("redis://user:s/e@c:r?e#t@host:6379/0", "redis://***@host:6379"),
        ("redis://host?db=1&password=secret&x=1", "redis://host"),
        ("localhost", "The address of Redis"),
        ("localhost:6379", "localhost:6379"),
    ],
)
def test_the_login_is_hidden_and_all_else_is_shown(url, shown):
    assert without_password(url) == shown


@given(st.text())
def test_any_text_is_an_address_or_an_error_of_the_user(text):
    for url in (text, f"redis://{text}", f"rediss://h?{text}", f"unix://{text}"):
        try:
            RedisAddress.parse(url)
        except UserError:
            without_password(url)


SECRETS = st.none() | st.text(st.characters(codec="utf-8"), min_size=1)


@st.composite
def addresses(draw: st.DrawFn) -> RedisAddress:
    login = {"db": draw(st.integers(0, 99)), "username": draw(SECRETS), "password": draw(SECRETS)}
    if draw(st.booleans()):
        return RedisAddress(socket=f"/{draw(st.text('a b/?#%@:é', min_size=1))}x", **login)
    return RedisAddress(
        host=draw(st.sampled_from(["localhost", "redis.example", "10.0.0.1", "::1", "fe80::2"])),
        port=draw(st.integers(1, 65535)),
        tls=draw(st.sampled_from([None, TLS])),
        **login,
    )


def url_of(address: RedisAddress) -> str:
    secret = "" if address.password is None else f":{quote(address.password, safe='')}"
    url = address.spelling(quote(address.username or "", safe="") + secret)
    return url.replace(address.socket, quote(address.socket)) if address.socket else url


@given(addresses())
def test_an_address_is_read_from_its_own_spelling(address):
    assert RedisAddress.parse(url_of(address)) == address


@given(addresses())
def test_what_is_shown_of_an_address_depends_on_no_login(address):
    one, other = (replace(address, username=text, password=text) for text in ("one", "other"))
    assert (str(one), repr(one)) == (str(other), repr(other))


#: The arguments of a connection that are its address; others are time limits and the like.
ADDRESS = ("host", "port", "path", "db", "username", "password", *TLS_PARAMETERS)


@given(addresses())
def test_celery_connects_to_the_same_address_with_the_same_tls(address):
    ours = redis_client(url_of(address)).connection_pool
    channel = object.__new__(Channel)  # its constructor connects
    with make_celery(url_of(address), []).connection_for_write() as connection:
        channel.connection = connection.transport
        theirs = channel._connparams()
    kind = theirs["connection_class"]
    assert ours.connection_class is BOUNDED.get(kind, kind)
    for name in ADDRESS:
        assert theirs.get(name) == ours.connection_kwargs.get(name), name
