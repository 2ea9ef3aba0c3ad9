"""What belongs to a loaded model, and most jobs never ask for."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from workers.models.loading import LoadedModel

T = TypeVar("T")


class Lazy(Generic[T]):
    """Something of a loaded model that is loaded when it is first asked for, once."""

    def __init__(self, load: Callable[[LoadedModel], T], loaded: LoadedModel) -> None:
        self._load = load
        self._loaded = loaded
        self._found: T | None = None
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return it; errors are those of loading it."""
        with self._lock:
            if self._found is None:
                self._found = self._load(self._loaded)
            return self._found
