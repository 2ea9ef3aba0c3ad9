"""Servers that cannot be reached, or cannot serve, for a while: what tells that from a refusal."""

from common.errors import chain

#: Names of the classes of errors, in any library of HTTP, with which a connection fails or ends.
#: Which library a client uses differs between its versions.
BROKEN = {
    *("ConnectionError", "TimeoutError", "TransportError", "HTTPClientError"),
    *("IncompleteReadError", "RetriesExceededError"),
}

#: Names of classes that are among those, though only a person can change what they say.
WRONG = {
    *("SSLCertVerificationError", "UnsupportedProtocol", "LocalProtocolError"),
    "OfflineModeIsEnabled",
}

#: HTTP statuses below 500 with which a server asks for another attempt.
AGAIN = {408, 429}

#: HTTP statuses from 500 on with which a server says that it never will.
NEVER = {501, 505}


def is_unavailable(error: BaseException) -> bool:
    """Return whether an error of a client of S3 or of the hub may pass by itself."""
    causes = [(cause, {kind.__name__ for kind in type(cause).__mro__}) for cause in chain(error)]
    if any(names & WRONG for _, names in causes):
        return False
    for cause, names in causes:
        status = status_of(cause)
        if status is not None:
            return status in AGAIN or (status >= 500 and status not in NEVER)
        if names & BROKEN:
            return True
    return False


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error is about, as botocore or the hub's library keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
