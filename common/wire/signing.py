"""Signed messages: workers with a key accept only batches signed with it."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.errors import UserError

#: Name of the header with a message's signature in hex.
SIGNATURE = "signature"

#: The smallest number of characters in a key.
SHORTEST_KEY = 16


@dataclass(frozen=True)
class MessageKeys:
    """The fleet's keys: the first one signs, all of them verify. Without any, nothing is signed."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> "MessageKeys":
        """Parse keys separated by commas.

        Raises:
            UserError: there is none, or one is so short that it could be guessed.
        """
        keys = tuple(key.strip().encode() for key in text.split(","))
        if not text.strip():
            raise UserError(
                "VIRNUCPRO_MESSAGE_KEY: it is set and empty: no message would be checked. Unset "
                "it, or give it a key. To make one: openssl rand -hex 32"
            )
        if any(len(key) < SHORTEST_KEY for key in keys):
            raise UserError(
                f"VIRNUCPRO_MESSAGE_KEY: a key has at least {SHORTEST_KEY} characters; separate "
                "several keys with commas. To make one: openssl rand -hex 32"
            )
        return cls(keys)

    def __str__(self) -> str:
        """What is done with messages, for logs."""
        if not self.keys:
            return "Messages are neither signed nor checked: VIRNUCPRO_MESSAGE_KEY is not set."
        return f"Messages are signed with the key {self.signs_with} and checked with {self.ids}."

    def __bool__(self) -> bool:
        return bool(self.keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """A short name of each key, which does not show it."""
        return tuple(hmac.digest(key, b"name", "sha256").hex()[:12] for key in self.keys)

    @property
    def signs_with(self) -> str:
        """The name of the key that signs; empty without one."""
        return self.ids[0] if self.keys else ""

    def headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        """Return the headers that sign a message; none without a key."""
        return {SIGNATURE: sign(message, self.keys[0])} if self.keys else {}

    def verify(self, message: Mapping[str, Any], signature: str) -> bool:
        """Return whether one of the keys made this signature of this message."""
        given = signature.encode(errors="backslashreplace")
        return any(hmac.compare_digest(sign(message, key).encode(), given) for key in self.keys)


def sign(message: Mapping[str, Any], key: bytes) -> str:
    """Return the HMAC-SHA256 of a message's canonical JSON, in hex."""
    text = json.dumps(message, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, text.encode(), "sha256").hex()
