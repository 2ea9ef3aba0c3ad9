"""S3's errors as errors of a store, with what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from common.store.base import ObjectNotFoundError, StoreError, StoreUnavailableError
from common.unavailable import is_unavailable

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

#: S3 error codes with which a server says that it does not know a kind of request, or a header.
UNKNOWN_REQUEST = {
    *("NotImplemented", "MethodNotAllowed", "InvalidRequest", "InvalidArgument", "BadRequest"),
    *("MissingContentMD5", "501", "405", "400"),
}


WRONG_KEYS = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."

#: Advice for each S3 error code.
S3_HINTS: dict[str, str] = {
    "InvalidAccessKeyId": WRONG_KEYS,
    "SignatureDoesNotMatch": WRONG_KEYS,
    "403": WRONG_KEYS,
    "AccessDenied": (
        "These credentials do not allow it: check the bucket's policy. Without the right to list, "
        "S3 says so of an object that is not there, too."
    ),
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
        "These credentials were for a time that is over: renew AWS_SESSION_TOKEN and the keys that "
        "belong to it, or use a role or a profile, which are renewed by themselves.",
    ),
    "NoSuchBucket": "Create the bucket first, or check its name.",
    **dict.fromkeys(
        ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "TemporaryRedirect"),
        "Set AWS_DEFAULT_REGION to the bucket's region, and AWS_ENDPOINT_URL_S3, if you do, to its "
        "endpoint there.",
    ),
    **dict.fromkeys(
        (*sorted(UNKNOWN_REQUEST), "XAmzContentSHA256Mismatch", "BadDigest", "InvalidDigest"),
        "If this server does not know S3's newer checksums, set "
        "AWS_REQUEST_CHECKSUM_CALCULATION=when_required.",
    ),
}


#: Advice where the server that gives credentials for a role has refused.
ROLE_HINT = (
    "No credentials for the role: check AWS_ROLE_ARN, the token in the file that "
    "AWS_WEB_IDENTITY_TOKEN_FILE names, and whether the role trusts who issued it."
)


@contextmanager
def store_errors(store: str, doing: str) -> Iterator[None]:
    """Turn the errors of boto3 into a StoreError that says what ``store`` could not do."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

    failures = (BotoCoreError, Boto3Error, RetriesExceededError, S3DownloadFailedError, OSError)
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if code in {"NoSuchKey", "404"}:
            raise ObjectNotFoundError(f"{store}: cannot {doing}: no such object.") from error
        is_of_role = error.operation_name.startswith("AssumeRole")
        hint = ROLE_HINT if is_of_role else S3_HINTS.get(code, "")
        message = f"{store}: cannot {doing}: {error}. {hint}"
        raise kind_of(error)(message.rstrip()) from error
    except failures as error:
        raise kind_of(error)(f"{store}: cannot {doing}: {error}.") from error


def kind_of(error: Exception) -> type[StoreError]:
    return StoreUnavailableError if is_unavailable(error) else StoreError


def is_unknown_request(error: BaseException | None) -> bool:
    """Whether a server refused a kind of request, or a header, that it does not know."""
    from botocore.exceptions import ClientError

    return isinstance(error, ClientError) and code_of(error) in UNKNOWN_REQUEST


def code_of(error: "ClientError") -> str:
    return str(error.response["Error"]["Code"])
