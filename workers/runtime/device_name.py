"""What the device of a process is called: in messages, in the ledger, and on record."""

import torch

#: What says that a worker has no GPU.
CPU = "CPU"


def device_name(device: str) -> str:
    """The name of ``cuda``, the first GPU that this process sees, or of ``cpu``."""
    return torch.cuda.get_device_name() if device == "cuda" else CPU
