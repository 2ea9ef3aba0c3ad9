"""The size of packs: the fastest, or the largest that fits the GPU's memory."""

from collections.abc import Callable
from contextlib import suppress

import torch

from common.model_specs import ModelSpec

#: Tokens of a pack on a CPU, and bytes of the hidden units of its MLP in FP32, at most.
#: Tensors above 32 MiB are mapped anew in each block, and their pages cleared (measured for 150M: 5
#: to 8 % of the time with 4096 tokens, 2 % with 2048).
CPU_PACK_TOKENS, CPU_HIDDEN_BYTES = 4096, 20 * 2**20

#: Tokens of the smallest pack that a device must have memory for.
SMALLEST_PACK_TOKENS = 1024

#: Tokens of a pack that keep an H200 busy with any model, and operations below which the GPU waits
#: for its host (measured: 650M and 3B are fastest from 32,768 tokens on, 8M from 262,144).
GPU_PACK_TOKENS, GPU_PACK_OPERATIONS = 65_536, 4e12

#: Operations that are queued behind the pack that is computed. They take an H200 some 50 ms, in
#: which the thread that queues packs may wait for others to leave Python (8M: 14.1 million tokens/s
#: with three packs, 12.8 million with one).
GPU_QUEUED_OPERATIONS = 1.2e13

#: Tokens of the two trial packs, which show the memory per token. One is a multiple of 16, one is
#: not: Triton compiles a kernel for either.
TRIAL_TOKENS = (4096, 8191)

#: Share of the free memory that is used, since packs of several sizes fragment it.
USABLE = 0.7


def fastest_pack_tokens(spec: ModelSpec, device: torch.device) -> int:
    """Return the tokens of the fastest pack, if memory allows any size."""
    if device.type != "cuda":
        small = CPU_HIDDEN_BYTES // (4 * spec.dim * torch.float32.itemsize)
        return max(SMALLEST_PACK_TOKENS, min(CPU_PACK_TOKENS, small))
    return max(GPU_PACK_TOKENS, int(GPU_PACK_OPERATIONS / (2 * spec.parameters)))


def packs_ahead(spec: ModelSpec, device: torch.device) -> int:
    """Return how many packs are queued while another is computed."""
    if device.type != "cuda":
        return 1
    operations = 2 * spec.parameters * fastest_pack_tokens(spec, device)
    return max(1, round(GPU_QUEUED_OPERATIONS / operations))


def pack_tokens_that_fit(run: Callable[[int], object], most: int) -> int:
    """Return the tokens of the largest pack for the GPU's free memory, at most ``most``.

    Args:
        run: runs packs of up to the given number of tokens on the GPU and waits for them.
        most: upper bound of the result.

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
    """Return the peak of allocated bytes during ``run(tokens)``."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run(tokens)
    return int(torch.cuda.max_memory_allocated())


def free_bytes() -> int:
    """Return the bytes of the GPU that this process may still allocate."""
    free, total = torch.cuda.mem_get_info()
    allowed = int(torch.cuda.get_per_process_memory_fraction() * total)
    return max(0, min(free, allowed - torch.cuda.memory_reserved()))


def used_and_total_bytes(device: torch.device) -> tuple[int, int] | None:
    """Return the bytes of a GPU that all programs use, and its total; None for a CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free, total


def limit_memory(gigabytes: float) -> None:
    """Limit the memory that this process allocates for tensors on its GPU."""
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))
