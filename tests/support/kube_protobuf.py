"""A Secret in the Protobuf form of Kubernetes, in which Helm sends its record of a release."""

import base64
from collections.abc import Iterator
from typing import Any

#: What a message of the API begins with.
MAGIC = b"k8s\0"


def read_secret(data: bytes) -> dict[str, Any]:
    """Return a Secret's name, labels, data and type."""
    # Numbers of fields are those of generated.proto: Unknown, Secret, ObjectMeta.
    raw = dict(fields(data.removeprefix(MAGIC)))[2]
    secret = list(fields(raw))
    metadata = list(fields(next(value for number, value in secret if number == 1)))
    name = next(value.decode() for number, value in metadata if number == 1)
    labels = {k.decode(): v.decode() for k, v in entries(metadata, 11)}
    values = {k.decode(): base64.b64encode(v).decode() for k, v in entries(secret, 2)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "fleet", "labels": labels},
        "data": values,
        "type": next(value.decode() for number, value in secret if number == 3),
    }


def entries(message: list[tuple[int, bytes]], number: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a map."""
    for found, value in message:
        if found == number:
            pair = dict(fields(value))
            yield pair[1], pair.get(2, b"")


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers and the bytes of a message's fields; those of numbers have none."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        size, at = varint(data, at)
        kind = key & 7
        if kind == 0:  # the number itself
            continue
        assert kind == 2, f"wire type {kind}"
        yield key >> 3, data[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
