"""Errors of clients of HTTP that pass by themselves, and those that only a person can end."""

import ssl

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from huggingface_hub.errors import OfflineModeIsEnabled

from common.store import StoreError
from common.store.base import StoreUnavailableError
from common.store.s3_errors import store_errors
from common.unavailable import is_unavailable

URL = "http://s3.example"


def answer(status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetObject",
    )


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url=URL),
        ConnectTimeoutError(endpoint_url=URL),
        ReadTimeoutError(endpoint_url=URL),
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
        answer(429, "TooManyRequests"),
        ConnectionResetError(),
    ],
    ids=repr,
)
def test_what_may_pass_is_an_unavailable_store(error):
    assert is_unavailable(error)
    with pytest.raises(StoreUnavailableError), store_errors("Store s3://b", "read x"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        answer(403, "AccessDenied"),
        answer(404, "NoSuchBucket"),
        answer(501, "NotImplemented"),
        NoCredentialsError(),
        OSError(28, "No space left on device"),
    ],
    ids=repr,
)
def test_what_only_a_person_can_end_is_another_error_of_a_store(error):
    with pytest.raises(StoreError) as caught, store_errors("Store s3://b", "read x"):
        raise error
    assert not isinstance(caught.value, StoreUnavailableError)


def test_a_certificate_that_is_not_trusted_and_an_intended_absence_do_not_pass():
    untrusted = SSLError(endpoint_url=URL, error="certificate verify failed")
    untrusted.__context__ = ssl.SSLCertVerificationError()
    assert not is_unavailable(untrusted)
    assert not is_unavailable(OfflineModeIsEnabled("HF_HUB_OFFLINE=1"))


def test_what_was_tried_before_a_refusal_does_not_count():
    refusal = answer(403, "AccessDenied")
    refusal.__context__ = EndpointConnectionError(endpoint_url=URL)
    assert not is_unavailable(refusal)
