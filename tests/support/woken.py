"""Processes that stop in the middle of something, and go on after something else has happened."""

from collections.abc import Callable
from typing import Any

import pytest


def once_before(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, event: Callable[[], object]
) -> None:
    """Have something happen right before the next call of a function."""
    call = getattr(where, name)

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(where, name, call)
        event()
        return call(*arguments, **options)

    monkeypatch.setattr(where, name, late)
