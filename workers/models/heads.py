"""Heads of loaded models, which most jobs never ask for: loading one, and keeping it."""

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from workers.models.loading import LoadedModel

T = TypeVar("T")
Head = TypeVar("Head", bound=nn.Module)


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


def with_weights(head: Head, state: Mapping[str, Tensor], loaded: LoadedModel) -> Head:
    """Return a head with its weights in FP32, on the device of the model that it belongs to.

    Args:
        head: made without memory, on the device "meta".
        state: its tensors, and perhaps others.
    """
    device = next(loaded.model.parameters()).device
    tensors = {name: state[name] for name in head.state_dict()}
    head.load_state_dict(
        {name: tensor.to(device, torch.float32, copy=True) for name, tensor in tensors.items()},
        assign=True,
    )
    return head.eval().requires_grad_(False)
