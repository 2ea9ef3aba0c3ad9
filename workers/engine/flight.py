"""A forward pass on the device: its work is queued at once, and its result is awaited later."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch

from workers.engine.packing import Pack
from workers.engine.prepared import PreparedBatch
from workers.models.encoder import Encoder
from workers.runtime import trace
from workers.runtime.device import DeviceEvent, to_device


class Timed(Protocol):
    """The result of one forward pass."""

    @property
    def seconds(self) -> float:
        """Seconds of the device's time."""


R_co = TypeVar("R_co", bound=Timed, covariant=True)


class PackDone(NamedTuple):
    """A pack that is done, for those who count."""

    tokens: int
    room: int  # tokens that such packs may have
    seconds: float  # of the device's time
    batch_tokens: int  # in all passes
    batch_done: int  # tokens, those of this pack included


class Flight(ABC, Generic[R_co]):
    """One forward pass and what follows it, all queued; ``land`` comes after all of it."""

    def __init__(self, model: Encoder, work: PreparedBatch, pack: Pack) -> None:
        self.work, self.pack = work, pack
        self.device = next(model.parameters()).device
        self.ids = to_device(torch.from_numpy(pack.ids), self.device)
        self.cu_seqlens = to_device(torch.from_numpy(pack.cu_seqlens), self.device)
        self._began = DeviceEvent(self.device)

    @staticmethod
    @abstractmethod
    def packs(work: PreparedBatch, budget: int) -> Iterator[Pack]:
        """Cut a batch into packs of at most ``budget`` tokens."""

    @abstractmethod
    def result(self) -> R_co:
        """Wait for the device and return the result."""

    def land(self) -> None:
        """Mark the end of the work."""
        self._done = DeviceEvent(self.device)

    def wait(self) -> float:
        """Wait for the end of the work; return seconds of the device's time."""
        self._done.wait()
        seconds = self._done.seconds_since(self._began)
        trace.add_device_span(f"{len(self.pack.ids):,} tokens", self._done, seconds)
        return seconds
