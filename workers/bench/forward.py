"""The speed of the model alone, in packs of several sizes."""

import statistics
import time
from dataclasses import dataclass

from workers.bench.proteins import segment_lengths
from workers.engine.engine import Engine
from workers.engine.prepared import synthetic_batch

#: Sizes of the packs, as shares of the engine's largest.
SHARES = (0.25, 0.5, 1.0)

#: Seconds of measuring packs of one size.
SECONDS = 3.0


@dataclass(frozen=True)
class PackSpeed:
    """The speed of packs of one size."""

    tokens: int
    seconds: float  # of a pack, median

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def measure_forward(engine: Engine) -> list[PackSpeed]:
    """Time packs of each size: forward pass, pooling, finiteness check and copy to the host."""
    budget = engine.pack_tokens[engine.precision]
    return [
        PackSpeed(int(budget * share), run_packs(engine, int(budget * share))) for share in SHARES
    ]


def run_packs(engine: Engine, tokens: int) -> float:
    """Return the median seconds of a pack: on a GPU, of several that are queued together."""
    spec, on_gpu = engine.loaded.spec, engine.device.type == "cuda"
    lengths = segment_lengths(tokens, spec.tokens(spec.family.max_residues))
    packs = 2 * (1 + engine.packs_ahead) if on_gpu else 1
    work = synthetic_batch(spec, lengths * packs, engine.precision)
    if on_gpu:
        engine.run_packs(work, tokens)  # compiles kernels; a CPU has none, and would take a minute
    seconds: list[float] = []
    until = time.perf_counter() + SECONDS
    while not seconds or time.perf_counter() < until:
        started = time.perf_counter()
        engine.run_packs(work, tokens)
        seconds.append((time.perf_counter() - started) / packs)
    return statistics.median(seconds)
