"""One forward pass on one GPU: this project's models in FP16 at several pack sizes, and others.

    python -m benchmarks.forward [--models NAME ...] [--packs TOKENS ...] [--repeats N]
                                 [--no-peers] [--peer-tokens N] [--profile]

Weights are random and made on the GPU; lengths are those of proteins (lognormal, median 290
residues, 30 to 1022), for DNABERT-S in tokens. All models run the same proteins, as many of the
first ones as a pack holds. A speed is the median of whole passes between CUDA events; padding does
not count. Peers take part if they are installed. A failure is printed, and the next one runs.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from torch.autograd import DeviceType

from benchmarks.inputs import first_proteins, random_model, random_proteins, token_count, tokens_for
from benchmarks.machine import (
    Run,
    Timing,
    attempt,
    describe_machine,
    device_or_exit,
    reason,
    release,
    time_runs,
)
from benchmarks.peers import PACKAGES, fair_esm_means, peers
from common.model_specs import ESM2, MODELS, ModelSpec
from workers.engine.pooling import Pooled, pool
from workers.models.encoder import Encoder
from workers.models.fused import fastest
from workers.runtime.device import exact_sums

DEFAULT_MODELS = ("esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D")

#: Tokens of this project's packs, by model.
PACKS = {
    "esm2_t6_8M_UR50D": (65_536, 262_144, 1_048_576),
    "esm2_t33_650M_UR50D": (16_384, 32_768, 65_536, 131_072),
    "esm2_t36_3B_UR50D": (16_384, 32_768, 65_536),
}
OTHER_PACKS = (65_536, 262_144)

#: Number of tokens that peers run, in far smaller batches. More proteins to sort mean less padding:
#: with batches of 16,384 tokens it is 12 % here, and 6 % for twice as many proteins.
PEER_TOKENS = 131_072

#: Number of runs of a peer, and seconds after which no further run begins.
PEER_REPEATS, PEER_SECONDS = 3, 8.0

#: Number of tokens whose embeddings are compared.
COMPARED_TOKENS = 32_768

#: Number of kernels that a profile names.
SHOWN = 12


def main() -> None:
    options = parse_options()
    device = device_or_exit(options.device)
    packs = {name: options.packs or PACKS.get(name, OTHER_PACKS) for name in options.models}
    proteins = random_proteins(max(options.peer_tokens, *map(max, packs.values())))
    print(describe_machine(device, PACKAGES), flush=True)
    for name in options.models:
        bench = Bench(MODELS[name], device, proteins, options)
        attempt(name, lambda bench=bench: bench.run(packs[bench.spec.name]))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=DEFAULT_MODELS, choices=MODELS)
    parser.add_argument("--packs", nargs="+", type=int, help="tokens; by default, by the model")
    parser.add_argument("--repeats", type=int, default=10, help="runs of this project's models")
    parser.add_argument("--device", default="cuda", help="cpu: to try this script, in BF16")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--peer-tokens", type=int, default=PEER_TOKENS)
    parser.add_argument("--profile", action="store_true", help="print the time of each kernel")
    return parser.parse_args()


# --- what is measured -------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """The result for one implementation and batch size."""

    name: str
    batch_tokens: int  # at most
    tokens: int  # of a pass, without padding
    timing: Timing | None
    why: str = ""  # why there is no timing

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.timing.median if self.timing else 0.0


@dataclass(frozen=True)
class Bench:
    """The measurement of one model in all implementations, on the same proteins."""

    spec: ModelSpec
    device: torch.device
    proteins: list[str]
    options: argparse.Namespace

    def run(self, packs: list[int]) -> None:
        """Measure the model and print all results."""
        own, means, profile = self.own_rows(packs)
        others: list[Row] = []
        if self.options.peers:
            others = self.peers()
        if self.options.peers and self.spec.family is ESM2:
            found = attempt("fair-esm's means", self.fair_esm_means)
            means |= {} if found is None else {"fair-esm FP32": found}
        print_table(self.spec.name, own, others)
        print_cosines(means)
        print("\n".join(profile), flush=True)

    def own_rows(self, packs: list[int]) -> tuple[list[Row], dict[str, Tensor], list[str]]:
        """Return rows, the compared proteins' means ``[N, D]`` by name, and a profile's lines."""
        release()
        name = "this project, FP16" if self.device.type == "cuda" else "this project, BF16"
        model = random_model(self.spec, self.device)
        compared = self.pack(COMPARED_TOKENS)
        with exact_sums():
            exact = compared.means(model)
            served = served_in_half(model)
            means = {name: compared.means(served), "this project, FP32": exact}
            rows = [self.own_row(name, served, tokens) for tokens in packs]
            best = max(rows, key=lambda row: row.speed)
            profile = []
            if self.options.profile and best.timing:
                pack = self.pack(best.batch_tokens)
                profile = profile_of(partial(pack.run, served), best.timing.median)
        return rows, means, profile

    def own_row(self, name: str, model: Encoder, tokens: int) -> Row:
        def load() -> Run:
            return partial(self.pack(tokens).run, model)

        return self.row(name, tokens, tokens, load, self.options.repeats)

    def peers(self) -> list[Row]:
        tokens = self.options.peer_tokens
        given = first_proteins(self.proteins, tokens)
        limits = min(PEER_REPEATS, self.options.repeats), PEER_SECONDS
        rows = []
        for peer in peers(self.spec):
            load = partial(peer.load, self.spec, given, peer.batch_tokens, self.device)
            rows.append(self.row(peer.name, peer.batch_tokens, tokens, load, *limits))
        return rows

    def row(
        self,
        name: str,
        batch_tokens: int,
        tokens: int,
        load: Callable[[], Run],
        repeats: int,
        most_seconds: float = math.inf,
    ) -> Row:
        """Load an implementation and time its run over the first ``tokens``."""
        given = token_count(map(len, first_proteins(self.proteins, tokens)))
        release()
        try:
            run = load()
            with torch.inference_mode():
                timing = time_runs(run, self.device, repeats, most_seconds)
            return Row(name, batch_tokens, given, timing)
        except Exception as error:
            return Row(name, batch_tokens, given, None, reason(error))

    def fair_esm_means(self) -> Tensor:
        release()
        compared = first_proteins(self.proteins, COMPARED_TOKENS)
        return fair_esm_means(self.spec, compared, self.device).cpu()

    def pack(self, tokens: int) -> "PackOnDevice":
        return PackOnDevice(self.spec, first_proteins(self.proteins, tokens), self.device)


class PackOnDevice:
    """The tensors of a pack on the model's device."""

    def __init__(self, spec: ModelSpec, proteins: list[str], device: torch.device) -> None:
        tokens = tokens_for(spec, proteins)
        self.spec = spec
        self.input_ids = torch.from_numpy(tokens.ids).to(device)
        self.cu_seqlens = torch.from_numpy(tokens.cu_seqlens).to(device)
        self.max_seqlen = int(tokens.lengths.max())

    @torch.inference_mode()
    def run(self, model: Encoder) -> Tensor:
        """Return the last representation ``[T, D]``."""
        last = self.spec.layers
        found = model.forward_packed(self.input_ids, self.cu_seqlens, self.max_seqlen, [last])
        return found[last]

    def means(self, model: Encoder) -> Tensor:
        """Return the segments' means as a worker computes them: ``[N, D]`` FP32 on the host."""
        rows = pool(self.run(model)[:, None], self.cu_seqlens, self.spec.family)
        return torch.from_numpy(Pooled.read(rows.cpu(), 1).mean[:, 0])


def served_in_half(model: Encoder) -> Encoder:
    """Cast a model to half precision, and return the view of it that the engine runs."""
    on_gpu = next(model.parameters()).is_cuda
    model.to(torch.float16 if on_gpu else torch.bfloat16)
    return fastest(model)


# --- what is printed --------------------------------------------------------------------------


def print_table(title: str, own: list[Row], others: list[Row]) -> None:
    best = max(row.speed for row in own)
    table = Table("", title=title, title_justify="left")
    for column in ("batch", "tokens/s", "min", "max", "peak GiB", "best / this"):
        table.add_column(column, justify="right")
    for row in own:
        table.add_row(*cells(row))
    table.add_section()
    for row in others:
        table.add_row(*cells(row), f"{best / row.speed:.2f}" if row.speed else "")
    console = Console()
    console.width = max(console.width, 130)  # a pipe's 80 columns would cut the names
    console.print()
    console.print(table)


def cells(row: Row) -> list[str]:
    if row.timing is None:
        return [escape(f"{row.name}: {row.why}"), f"{row.batch_tokens:,}", *[""] * 4]
    speeds = (row.speed, *(row.tokens / end(row.timing.seconds) for end in (max, min)))
    return [
        row.name,
        f"{row.batch_tokens:,}",
        *(f"{speed:,.0f}" for speed in speeds),
        f"{row.timing.peak / 2**30:.1f}",
    ]


def print_cosines(means: dict[str, Tensor]) -> None:
    """Print the lowest cosine of any segment, between this project's precisions and the peer."""
    names = list(means)
    for k, name in enumerate(names[:2]):
        for other in names[k + 1 :]:
            cosines = torch.cosine_similarity(means[name].double(), means[other].double())
            print(f"{name} to {other}: cosine of {len(cosines)} means ≥ {cosines.min():.7f}")


def profile_of(run: Run, seconds: float) -> list[str]:
    """Return lines on the kernels of a run, which takes ``seconds`` without the profiler."""
    with torch.profiler.profile() as profile:
        run()
    device = DeviceType.CUDA if torch.cuda.is_available() else DeviceType.CPU
    clock = f"self_{'device' if device == DeviceType.CUDA else 'cpu'}_time_total"
    kernels = [
        (getattr(event, clock) / 1e6, event.count, event.key)
        for event in profile.key_averages()
        if event.device_type == device
    ]
    kernels.sort(reverse=True)
    busy = sum(kernel[0] for kernel in kernels)
    lines = [f"A kernel runs in {busy / seconds:.1%} of a pass of {1000 * seconds:.2f} ms:"]
    for time, count, name in kernels[:SHOWN]:
        lines.append(f"  {1000 * time:9.3f} ms {time / seconds:6.1%} {count:5} x {name[:80]}")
    return lines


if __name__ == "__main__":
    main()
