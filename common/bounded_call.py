"""A call that may hang, in a thread of its own, for as long as its caller waits."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedCall(Generic[T]):
    """A call that runs beside its caller from now on.

    A look-up of a name, or a driver, may have no bound of its own. A thread that hangs in one is
    left behind: it does not keep the process from ending.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._returned: list[T] = []
        self._raised: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="bounded", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._returned.append(self._call())
        except BaseException as error:
            self._raised.append(error)

    @property
    def is_running(self) -> bool:
        """Whether the call has neither returned nor raised."""
        return self._thread.is_alive()

    def result(self, seconds: float) -> T:
        """Return what the call returns, or raise what it raises.

        Raises:
            TimeoutError: it is still running.
        """
        self._thread.join(seconds)
        if self._raised:
            raise self._raised[0]
        if not self._returned:
            raise TimeoutError(f"no answer within {seconds:.3g} s")
        return self._returned[0]


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns.

    Raises:
        TimeoutError: it took longer.
    """
    return BoundedCall(call).result(seconds)
