"""The address of the fleet's Redis: the only reading of its URL, for all clients."""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from common.errors import UserError
from common.paths import user_path

#: The spellings that are understood, for messages.
SPELLINGS = (
    "Write redis://USER:PASSWORD@HOST:6379/0, the same with rediss:// for TLS, or "
    "unix:///run/redis.sock?db=0, in VIRNUCPRO_BROKER_URL or --broker"
)

UNREADABLE = (
    "it has no valid host and port, or a character that must be written otherwise (in a password, "
    "/ as %2F, ? as %3F, # as %23, @ as %40, & as %26 and % as %25; an IPv6 address in brackets)"
)

#: The parameters after ``?`` of every URL, and those of ``rediss://``.
PARAMETERS = ("db", "username", "password")
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_PARAMETERS = ("ssl_cert_reqs", "ssl_check_hostname", *TLS_FILES)

VERIFICATIONS = ("required", "optional", "none")
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

HOST = re.compile(r"[\w.-]+|[0-9a-fA-F:.]+", re.ASCII)

#: What may be shown of a text that is not understood: scheme, host and port. All else, and all
#: before the last ``@``, may be a part of the password; without scheme or port, the host too.
SHOWN = re.compile(
    r"(?P<scheme>[a-z0-9+.-]+://)?(?P<secret>.*@)?(?P<host>(\[[\w:.]*\]|[\w.-]*)(:\d{1,5}\b)?)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class RedisAddress:
    """A server, a database in it, and the means to be let in, which are not shown."""

    host: str = "localhost"
    port: int = 6379
    socket: str | None = None  # path of a Unix socket, in place of host and port
    db: int = 0
    username: str | None = field(default=None, repr=False)  # some write the password there
    password: str | None = field(default=None, repr=False)
    #: The TLS options of redis-py, which kombu hands on unchanged; None: no TLS.
    tls: dict[str, Any] | None = None

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Read a URL.

        Raises:
            UserError: it is not the URL of one Redis server, or has a part that is not known; the
                message has nothing of the login.
        """
        try:
            return parse_address(url.strip())
        except ValueError as error:
            raise UserError(f"{shown(url.strip())}: {error}. {SPELLINGS}.") from None

    def __str__(self) -> str:
        return self.spelling("***" if self.username or self.password else "")

    def spelling(self, login: str) -> str:
        """Return the address as a URL with ``login`` for user and password."""
        login = login and f"{login}@"
        if self.socket is not None:
            return f"unix://{login}{self.socket}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "redis" if self.tls is None else "rediss"
        return f"{scheme}://{login}{host}:{self.port}/{self.db}"

    def options(self) -> dict[str, Any]:
        """Return the address as arguments of redis-py's ``Redis``."""
        login = {"db": self.db, "username": self.username, "password": self.password}
        if self.socket is not None:
            return {"unix_socket_path": self.socket, **login}
        return {
            **{"host": self.host, "port": self.port, "ssl": self.tls is not None},
            **(self.tls or {}),
            **login,
        }


def parse_address(url: str) -> RedisAddress:
    """Read a URL; a ValueError says in words of its own what is wrong."""
    if not url.isprintable():  # urlsplit drops some of these characters
        raise ValueError("it has a control character")
    check_scheme(url)
    parts = split(url)
    parameters = parameters_of(parts)
    username = login("username", parts.username, parameters)
    password = login("password", parts.password, parameters)
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError("unix:// needs the whole path of a socket, after three slashes")
        path, db = unquote(parts.path), database("", parameters)
        return RedisAddress(socket=path, db=db, username=username, password=password)
    host = unquote(parts.hostname or "localhost")
    if not HOST.fullmatch(host):
        raise ValueError(UNREADABLE)
    return RedisAddress(
        host=host,
        port=parts.port or 6379,
        db=database(parts.path.strip("/"), parameters),
        username=username,
        password=password,
        tls=tls_options(parameters) if parts.scheme == "rediss" else None,
    )


def check_scheme(url: str) -> None:
    scheme, separator, _ = url.lower().partition("://")
    if not separator:
        raise ValueError("it has no redis://, rediss:// or unix:// before it")
    if "sentinel" in scheme or "cluster" in scheme:
        raise ValueError("Sentinel and Cluster are not supported: name the one server, the primary")
    if scheme not in ("redis", "rediss", "unix"):
        raise ValueError("only redis://, rediss:// and unix:// are understood")


def split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_valid = parts.port != 0 and not parts.fragment and "@" not in parts.path
    except ValueError:  # its message quotes the URL
        is_valid = False
    if not is_valid:
        raise ValueError(UNREADABLE)
    return parts


def parameters_of(parts: SplitResult) -> dict[str, str]:
    """Return the parameters after ``?``. Messages do not quote them: after an ``&`` that was not
    escaped, a part of the password looks like one.
    """
    found = parse_qs(parts.query, keep_blank_values=True)
    known = PARAMETERS + (TLS_PARAMETERS if parts.scheme == "rediss" else ())
    if not found.keys() <= set(known) or any(len(texts) > 1 for texts in found.values()):
        raise ValueError(f"after ? may be, each once and with = and &: {', '.join(known)}")
    return {name: texts[0] for name, texts in found.items()}


def login(name: str, text: str | None, parameters: dict[str, str]) -> str | None:
    """Return the user or the password, which stands before ``@`` or after ``?``."""
    before, after = unquote(text or ""), parameters.get(name, "")
    if before and after and before != after:
        raise ValueError(f"it has two {name}s")
    return before or after or None


def database(path: str, parameters: dict[str, str]) -> int:
    """Return the number of the database, which the path or ``?db=`` names."""
    text = parameters.get("db", path or "0")
    if not re.fullmatch("[0-9]{1,9}", text) or (path and path != text):
        raise ValueError("its database is not one number")
    return int(text)


def tls_options(parameters: dict[str, str]) -> dict[str, Any]:
    """Return the options of TLS, stated even where they are defaults: kombu has other defaults."""
    # kombu's spelling is CERT_REQUIRED.
    verification = parameters.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verification not in VERIFICATIONS:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(VERIFICATIONS)}")
    check_hostname = parameters.get("ssl_check_hostname", "true").lower()
    if check_hostname not in BOOLEANS:
        raise ValueError("ssl_check_hostname is true or false")
    files = {name: str(user_path(parameters[name])) for name in TLS_FILES if name in parameters}
    if "" in map(parameters.get, files):
        raise ValueError(f"one of {', '.join(TLS_FILES)} names no file")
    return {
        "ssl_cert_reqs": verification,
        "ssl_check_hostname": BOOLEANS[check_hostname],
        **files,
    }


def without_password(url: str) -> str:
    """Return a URL as it may be shown; of one that is not understood, the parts that may be."""
    try:
        return str(parse_address(url.strip()))
    except (ValueError, UserError):
        return shown(url)


def shown(text: str) -> str:
    """Return what may be shown of a text that is not understood."""
    found = SHOWN.match(text)
    assert found is not None  # all parts are optional
    scheme, secret, host = found.group("scheme", "secret", "host")
    if scheme or secret or ":" in host:
        return f"{scheme or ''}{'***@' if secret else ''}{host}"
    return "The address of Redis" if text else "The address of Redis is empty"
