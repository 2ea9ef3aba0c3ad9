"""What all fuzz tests share: the seed, the number of examples, and damage to bytes."""

import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

#: The seed of all fuzz tests: another one in each run, unless it is given.
SEED = int(os.environ.setdefault("FUZZ_SEED", str(time.time_ns() // 1000 % 2**32)))

#: Number of examples of each test, which those that are slow divide.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))


def fuzz(slower: int = 1) -> Callable[[Any], Any]:
    """Make a hypothesis test one of this folder.

    Args:
        slower: divisor of the number of examples.
    """

    def decorate(test: Any) -> Any:
        limited = settings(
            max_examples=max(1, EXAMPLES // slower),
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )
        return seed(SEED)(limited(test))

    return decorate


def replay(test: str) -> str:
    """Return the command that runs a test again with the same examples."""
    return f"FUZZ_SEED={SEED} FUZZ_EXAMPLES={EXAMPLES} pytest '{test}'"


#: One change of some bytes: the place as a share of the length, bytes to delete, bytes to insert.
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 20), st.binary(max_size=8)), min_size=1, max_size=4
)


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Return bytes with some of them deleted and others inserted."""
    for place, deleted, inserted in edits:
        start = int(place * len(data))
        data = data[:start] + inserted + data[start + deleted :]
    return data


#: Any value of JSON, among them what Python's and Redis's parsers take for different things.
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from([0, -1, 1, "fp16", "[/x]", "\x1b[2J", "../x", "1", 10**9, 10**300]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with some of its values changed, dropped or added."""
    result = dict(document)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*document, "of_a_newer_version"]))
        value = result.get(name)
        if draw(st.booleans()):
            result.pop(name, None)
        elif isinstance(value, dict) and value and draw(st.booleans()):
            result[name] = draw(changed(value))
        else:
            result[name] = draw(JSON)
    return result
