"""What trust costs on one GPU: the finiteness check, each rung's speed, and the views' memory.

    python -m benchmarks.ladder [--models NAME ...] [--tokens N] [--repeats N]

Random weights, made on the GPU; lengths as in ``benchmarks.gpu``. Pooling with the check and the
same without it alternate; figures are medians, the copy to the host included.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import (
    attempt,
    describe_machine,
    random_model,
    random_proteins,
    release,
    tokens_for,
)
from common.manifest import OutputForm
from common.modeltable import MODELS, ModelSource, ModelSpec
from common.rungs import Rung
from workers import engine as engine_module
from workers.backend import compile_blocks, exact_sums
from workers.engine import Engine
from workers.models.esm2_tokens import tokenize_esm2
from workers.models.loading import LoadedModel
from workers.packing import make_packs
from workers.pooling import Pooled
from workers.work import Work

FORM = OutputForm(max_residues=1022)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = ["esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D", "dnabert_s"]
    parser.add_argument("--models", nargs="+", default=models, choices=MODELS)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    print(describe_machine("cuda"), flush=True)
    for name in options.models:
        attempt(name, lambda name=name: measure(MODELS[name], options.tokens, options.repeats))


def measure(spec: ModelSpec, tokens: int, repeats: int) -> None:
    model = random_model(spec, "cuda").half()
    before = torch.cuda.memory_allocated()
    engine = Engine(LoadedModel(model, tokenize_esm2, ModelSource(f"random:{spec.name}"), ""))
    views = (torch.cuda.memory_allocated() - before) / 1e6
    work = work_of(spec, tokens, Rung.FP16)
    compile_blocks(model)
    run = runner(engine, work)
    run()
    print(f"\n{spec.name}: {tokens:,} tokens, both views together {views:.3f} MB", flush=True)
    print(f"  waits for the device in one pack: {waits(run)}", flush=True)
    print_check(engine, work, repeats)
    for rung in engine.models:
        count = repeats if rung is Rung.FP16 else 3
        seconds = timed(runner(engine, work_of(spec, tokens, rung)), count)
        print(f"  {rung:16} {tokens / statistics.median(seconds):>12,.0f} tokens/s", flush=True)
    release(model)


def work_of(spec: ModelSpec, tokens: int, rung: Rung) -> Work:
    batch = tokens_for(spec, random_proteins(tokens))
    count = len(batch.lengths)
    return Work(
        records=[],
        lengths=batch.lengths - 2,
        firsts=range(count),
        tokens=batch,
        layers=[spec.layers],
        form=FORM,
        precision=rung,
    )


def runner(engine: Engine, work: Work) -> Callable[[], object]:
    [pack] = make_packs(work.tokens, len(work.tokens.ids))

    def run() -> object:
        with exact_sums():
            return engine._run_pack(work, pack)

    return run


@torch.inference_mode()
def print_check(engine: Engine, work: Work, repeats: int) -> None:
    """Time the pooling of one pack's vectors with and without the check, in turns."""
    [pack] = make_packs(work.tokens, len(work.tokens.ids))
    ids, cu_seqlens = (torch.from_numpy(a).cuda() for a in (pack.ids, pack.cu_seqlens))
    last = engine.loaded.spec.layers
    model, family = engine.loaded.model, engine.loaded.spec.family
    hidden = model.forward_packed(ids, cu_seqlens, pack.max_seqlen, [last])[last][:, None]
    whole = statistics.median(timed(runner(engine, work), repeats))
    pooled = {pool: [] for pool in (pool_unchecked, engine_module.pool)}
    for _ in range(10 * repeats):
        for pool, seconds in pooled.items():
            seconds += timed(lambda pool=pool: pool(hidden, cu_seqlens, family), 1)
    without, with_ = (statistics.median(seconds) for seconds in pooled.values())
    cost = with_ - without
    print(
        f"  pack {1e3 * whole:.2f} ms; pooling and copy {1e6 * with_:.0f} us with the check, "
        f"{1e6 * without:.0f} us without: {1e6 * cost:.0f} us, {100 * cost / whole:.3f} % of it",
        flush=True,
    )


def pool_unchecked(hidden: Tensor, cu_seqlens: Tensor, _family: object) -> Pooled:
    """``workers.pooling.pool`` of ESM-2 without its flags."""
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    bounds = torch.stack((starts, starts + 1, ends - 1), dim=1).flatten()
    offsets = torch.cat((bounds, ends[-1:]))
    sums = torch.segment_reduce(hidden.float(), "sum", offsets=offsets, axis=0)
    sums = sums.view(-1, 3, *hidden.shape[1:])
    mean = sums[:, 1] / (ends - starts - 2)[:, None, None]
    host = torch.cat((mean.flatten(1), sums[:, 0].flatten(1)), dim=1).cpu().numpy()
    vectors = host.reshape(-1, 2, *hidden.shape[1:])
    return Pooled(vectors[:, 0], vectors[:, 1], np.ones(len(starts), dtype=bool))


def waits(run: Callable[[], object]) -> int:
    """How often the host waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in seen)


def timed(run: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
