"""How many tokens a pack may have: what is fastest, or what the GPU's memory has room for."""

from collections.abc import Callable
from contextlib import suppress

import torch

from common.model_specs import ModelSpec

#: Tokens in a pack on a CPU: few enough that a layer's activations stay near the cache (measured:
#: 4096 is best for 8M and 35M).
CPU_PACK_TOKENS = 4096

SMALLEST_PACK_TOKENS = 1024

#: Tokens that fill an H200 with any model, and operations below which the GPU waits for its host
#: (measured: 650M and 3B are as fast as ever at 32,768; 8M wants 262,144).
GPU_PACK_TOKENS, GPU_PACK_OPERATIONS = 65_536, 4e12

#: Sizes of the packs that are tried at the start, to see what a token takes. One is a multiple of
#: 16, one is not: Triton compiles a kernel for either.
TRIAL_TOKENS = (4096, 8191)

#: Share of the free memory to plan with: packs of other sizes leave gaps between them.
USABLE = 0.8


def fastest_pack_tokens(spec: ModelSpec, device: torch.device) -> int:
    """Tokens of a pack on a device whose memory is no concern."""
    if device.type != "cuda":
        return CPU_PACK_TOKENS
    return max(GPU_PACK_TOKENS, int(GPU_PACK_OPERATIONS / (2 * spec.parameters)))


def pack_tokens_that_fit(run: Callable[[int], object], most: int) -> int:
    """Tokens of a pack for the memory that is free on the GPU, at most ``most``.

    Args:
        run: runs packs of up to so many tokens on the GPU and waits for them.

    Raises:
        torch.OutOfMemoryError: not even the smallest pack fits.
    """
    peaks = []
    with suppress(torch.OutOfMemoryError):
        peaks += [peak_bytes(run, tokens) for tokens in TRIAL_TOKENS]
    torch.cuda.empty_cache()
    if not peaks:
        run(SMALLEST_PACK_TOKENS)
        return SMALLEST_PACK_TOKENS
    bytes_per_token = max(1.0, (peaks[1] - peaks[0]) / (TRIAL_TOKENS[1] - TRIAL_TOKENS[0]))
    tokens = int(USABLE * free_bytes() / bytes_per_token)
    return max(SMALLEST_PACK_TOKENS, min(most, tokens))


def peak_bytes(run: Callable[[int], object], tokens: int) -> int:
    """The most that was allocated at once."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run(tokens)
    return int(torch.cuda.max_memory_allocated())


def free_bytes() -> int:
    """Bytes of the GPU that this process may still take."""
    free, total = torch.cuda.mem_get_info()
    allowed = int(torch.cuda.get_per_process_memory_fraction() * total)
    return max(0, min(free, allowed - torch.cuda.memory_reserved()))


def limit_memory(gigabytes: float) -> None:
    """Let this process take so much of its GPU for tensors, beside its code, and no more."""
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))
