"""Signed messages: with a key, only those who have it can give a fleet's workers work."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.errors import UserError

#: Header of a message with its signature in hex.
SIGNATURE = "signature"

SHORTEST_KEY = 16


@dataclass(frozen=True)
class MessageKeys:
    """The fleet's keys: the first signs, all of them verify. Without any nothing is signed."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> "MessageKeys":
        """Keys with commas between them; none in an empty text.

        Raises:
            UserError: a key that could be guessed.
        """
        keys = tuple(key.strip().encode() for key in text.split(",")) if text else ()
        if any(len(key) < SHORTEST_KEY for key in keys):
            raise UserError(
                f"VIRNUCPRO_MESSAGE_KEY: a key has at least {SHORTEST_KEY} characters, and commas "
                "stand between keys alone. To make one: openssl rand -hex 32"
            )
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self.keys)

    def headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        """What goes with a message: its signature, if there is a key."""
        return {SIGNATURE: sign(message, self.keys[0])} if self.keys else {}

    def verify(self, message: Mapping[str, Any], signature: str) -> bool:
        """Whether one of the keys made this signature of this message."""
        given = signature.encode(errors="backslashreplace")
        return any(hmac.compare_digest(sign(message, key).encode(), given) for key in self.keys)


def sign(message: Mapping[str, Any], key: bytes) -> str:
    """HMAC-SHA256 of a message in the one form of JSON that all sides write alike, in hex."""
    text = json.dumps(message, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, text.encode(), "sha256").hex()
