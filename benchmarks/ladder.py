"""The costs of the precision ladder on one GPU: finiteness check, each rung's speed, memory.

    python -m benchmarks.ladder [--models NAME ...] [--tokens N] [--repeats N]

Weights are random and made on the GPU; lengths are those of proteins (``benchmarks.inputs``).
Pooling with and without the check alternate; figures are medians and include the copy to the host.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.inputs import random_model, random_proteins
from benchmarks.machine import Run, attempt, describe_machine, device_or_exit, release
from common.alphabet import SPECIAL_TOKENS
from common.model_source import ModelSource
from common.model_specs import MODELS, ModelSpec
from common.rungs import Rung
from workers.engine.engine import Engine
from workers.engine.in_flight import PackInFlight
from workers.engine.packing import Pack, make_packs
from workers.engine.pooling import pool
from workers.engine.prepared import PreparedBatch, synthetic_batch
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.models.loading import LoadedModel
from workers.runtime.device import exact_sums, to_host

GPU = torch.device("cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = ["esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D", "dnabert_s"]
    parser.add_argument("--models", nargs="+", default=models, choices=MODELS)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    device_or_exit(GPU.type)
    print(describe_machine(GPU), flush=True)
    for name in options.models:
        release()
        attempt(name, lambda name=name: measure(MODELS[name], options.tokens, options.repeats))


def measure(spec: ModelSpec, tokens: int, repeats: int) -> None:
    model = random_model(spec, GPU).half()
    before = torch.cuda.memory_allocated()
    engine = Engine(LoadedModel(model, ESM2_TOKENIZER, ModelSource(f"random:{spec.name}"), ""))
    views = (torch.cuda.memory_allocated() - before) / 1e6
    lengths = [len(protein) + SPECIAL_TOKENS for protein in random_proteins(tokens)]
    passes = {rung: OnePack(engine, synthetic_batch(spec, lengths, rung)) for rung in engine.models}
    served = passes[Rung.FP16]
    served.run()
    print(f"\n{spec.name}: {tokens:,} tokens, all views together {views:.3f} MB", flush=True)
    print(f"  waits for the device while a pack is queued: {waits(served.queue)}", flush=True)
    print_check(served, repeats)
    for rung, one in passes.items():
        seconds = timed(one.run, repeats if one is served else 3)
        print(f"  {rung:16} {tokens / statistics.median(seconds):>12,.0f} tokens/s", flush=True)


class OnePack:
    """A batch of one pack, run as in the engine."""

    def __init__(self, engine: Engine, work: PreparedBatch) -> None:
        self.model, self.work = engine.models[work.precision], work
        self.pack: Pack
        [self.pack] = make_packs(work.tokens, len(work.tokens.ids))

    def queue(self) -> PackInFlight:
        with exact_sums():
            return PackInFlight(self.model, self.work, self.pack)

    def run(self) -> object:
        return self.queue().result()

    def hidden(self) -> tuple[Tensor, Tensor]:
        """Return the last representation ``[T, 1, D]`` and the segments' starts ``[N + 1]``."""
        ids, cu_seqlens = (
            torch.from_numpy(a).to(GPU) for a in (self.pack.ids, self.pack.cu_seqlens)
        )
        [last] = self.work.layers
        found = self.model.forward_packed(ids, cu_seqlens, self.pack.max_seqlen, [last])
        return found[last][:, None], cu_seqlens


@torch.inference_mode()
def print_check(one: OnePack, repeats: int) -> None:
    """Time the pooling of one pack's vectors with and without the check, in turns."""
    hidden, cu_seqlens = one.hidden()
    family = one.model.spec.family
    whole = statistics.median(timed(one.run, repeats))
    seconds: dict[Callable[..., Tensor], list[float]] = {pool_unchecked: [], pool: []}
    for _ in range(10 * repeats):
        for way, found in seconds.items():
            found += timed(lambda way=way: to_host(way(hidden, cu_seqlens, family)), 1)
    without, with_ = (statistics.median(found) for found in seconds.values())
    cost = with_ - without
    print(
        f"  pack {1e3 * whole:.2f} ms; pooling and copy {1e6 * with_:.0f} us with the check, "
        f"{1e6 * without:.0f} us without: {1e6 * cost:.0f} us, {100 * cost / whole:.3f} % of it",
        flush=True,
    )


def pool_unchecked(hidden: Tensor, cu_seqlens: Tensor, _family: object) -> Tensor:
    """Return the result of ``workers.engine.pooling.pool`` for ESM-2, without flags."""
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    bounds = torch.stack((starts, starts + 1, ends - 1), dim=1).flatten()
    offsets = torch.cat((bounds, ends[-1:]))
    sums = torch.segment_reduce(hidden.float(), "sum", offsets=offsets, axis=0)
    sums = sums.view(-1, 3, *hidden.shape[1:])  # [N, 3, K, D]
    mean = sums[:, 1] / (ends - starts - SPECIAL_TOKENS)[:, None, None]
    return torch.cat((mean.flatten(1), sums[:, 0].flatten(1)), dim=1)


def waits(run: Run) -> int:
    """Return how often the host waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in seen)


def timed(run: Run, repeats: int) -> list[float]:
    """Return the seconds of each run, from the host's call until the device has finished."""
    seconds = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
