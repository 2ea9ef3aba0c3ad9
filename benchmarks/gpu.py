"""One packed batch on one GPU: our models in FP16, ESM-2 beside fair-esm, and the numbers beside
FP32's.

    python -m benchmarks.gpu [--models NAME ...] [--tokens N] [--repeats N] [--profile]

Random weights, made on the GPU; lengths as proteins have them (lognormal, median 290 residues, 30
to 1022), for DNABERT-S in tokens. Each figure is a median of whole batches between CUDA events,
after a warm-up. Needs torch and numpy; fair-esm takes part if it is installed. A part that fails
says so, and the next one runs.
"""

import argparse
import gc
import statistics
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.modeltable import ESM2, MODELS, ModelSpec
from workers.backend import compile_blocks, exact_sums
from workers.models.attention import VARLEN_KERNEL
from workers.models.encoder import Encoder
from workers.models.esm2_tokens import tokenize_esm2
from workers.models.loading import model_class
from workers.models.random_weights import random_scale
from workers.packing import Tokens

#: Gives proteins' token-weighted mean length, 487, with the median of 290.
LENGTH_SIGMA = 0.64

#: Tokens of a padded batch: esm-extract's default, and more for FP16, which needs more to be fast.
FAIR_ESM_TOKENS = {torch.float32: 4096, torch.float16: 16_384}


def main() -> None:
    options = parse_options()
    print(describe_machine(options.device), flush=True)
    for name in options.models:
        measure_model(MODELS[name], options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = ["esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D"]
    parser.add_argument("--models", nargs="+", default=models, choices=MODELS)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda", help="cpu: to try this script, in BF16")
    parser.add_argument("--profile", action="store_true", help="print where our time goes")
    return parser.parse_args()


def describe_machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    kernel = VARLEN_KERNEL.__module__ if VARLEN_KERNEL else "no kernel"
    return f"{name}; torch {torch.__version__}, CUDA {torch.version.cuda}; {kernel} for packs"


@torch.no_grad()
def measure_model(spec: ModelSpec, options: argparse.Namespace) -> None:
    proteins = random_proteins(options.tokens)
    print(f"\n{spec.name}: {len(proteins)} segments, {options.tokens:,} tokens", flush=True)
    bench = Bench(options)
    pack = PackOnDevice(tokens_for(spec, proteins), options.device)
    model = random_model(spec, options.device)
    weights = fair_esm_weights(model) if spec.family is ESM2 else {}
    with exact_sums():
        exact = attempt("ours, FP32", lambda: pack.means(model))
    half = torch.float16 if options.device == "cuda" else torch.bfloat16
    model.to(half)
    plain = attempt("ours", lambda: bench.packed("ours, not compiled", model, pack))
    attempt("compilation", lambda: bench.compile(model, pack))
    compiled = attempt("ours, compiled", lambda: bench.packed("ours, compiled", model, pack))
    if options.profile:
        attempt("profile", lambda: print_profile(lambda: pack.run(model)))
    print_cosine(f"ours in {half} against FP32", plain, exact)
    print_cosine(f"ours in {half}, compiled, against FP32", compiled, exact)
    release(model)
    if spec.family is ESM2:
        attempt("fair-esm", lambda: compare_fair_esm(spec, weights, proteins, exact, bench))


# --- what is measured -------------------------------------------------------------------------


class PackOnDevice:
    """A pack's tensors where the model is."""

    def __init__(self, tokens: Tokens, device: str) -> None:
        self.input_ids = torch.from_numpy(tokens.ids).to(device)
        self.cu_seqlens = torch.from_numpy(tokens.cu_seqlens).to(device)
        self.max_seqlen = int(tokens.lengths.max())

    @torch.inference_mode()
    def run(self, model: Encoder) -> Tensor:
        """The last representation, ``[T, D]``."""
        last = model.spec.layers
        found = model.forward_packed(self.input_ids, self.cu_seqlens, self.max_seqlen, [last])
        return found[last]

    def means(self, model: Encoder) -> Tensor:
        """FP32 means over each segment's residues, ``[N, D]``."""
        hidden = self.run(model).float()
        bounds = self.cu_seqlens.tolist()
        return torch.stack([hidden[start + 1 : end - 1].mean(0) for start, end in pairwise(bounds)])


class Bench:
    """Times runs and prints a line for each."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device, self.repeats, self.tokens = options.device, options.repeats, options.tokens

    def packed(self, label: str, model: Encoder, pack: PackOnDevice) -> Tensor:
        dtype = next(model.parameters()).dtype
        self.line(f"{label}, {dtype}", lambda: pack.run(model), self.repeats)
        return pack.means(model)

    def compile(self, model: Encoder, pack: PackOnDevice) -> None:
        """Compile the blocks; then see that a pack of another size compiles nothing more."""
        compile_blocks(model)
        try:
            first = self.clock(lambda: pack.run(model))
        except Exception:
            torch.compiler.set_stance("force_eager")
            raise
        usual, graphs = self.clock(lambda: pack.run(model)), compiled_graphs()
        print(f"  compiled in {first - usual:.1f} s, {graphs} graphs", flush=True)
        fewer = random_proteins(self.tokens // 3, seed=1)
        other = PackOnDevice(tokens_for(model.spec, fewer), self.device)
        again = self.clock(lambda: other.run(model))
        more = compiled_graphs() - graphs
        print(f"  first run of another size: {again:.3f} s, {more} more graphs", flush=True)

    def line(self, label: str, run: Callable[[], Any], repeats: int) -> None:
        """Warm up, time ``repeats`` runs and print tokens per second and peak memory."""
        for _ in range(max(1, repeats // 3)):
            run()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = [self.clock(run) for _ in range(repeats)]
        middle, fastest, slowest = statistics.median(seconds), min(seconds), max(seconds)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else 0.0
        print(
            f"  {label:42} {self.tokens / middle:>9,.0f} tokens/s   "
            f"({self.tokens / slowest:,.0f} to {self.tokens / fastest:,.0f}, {repeats} runs)   "
            f"{1000 * middle:.1f} ms   peak {peak:.1f} GiB",
            flush=True,
        )

    def clock(self, run: Callable[[], Any]) -> float:
        """Seconds of one run."""
        if self.device != "cuda":
            started = time.perf_counter()
            run()
            return time.perf_counter() - started
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000


def compiled_graphs() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def print_profile(run: Callable[[], Any]) -> None:
    """Print the kernels that take the most time in one run."""
    with torch.profiler.profile() as profile:
        run()
    clock = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, clock))
    for event in events[:15]:
        print(f"    {getattr(event, clock) / 1000:9.3f} ms {event.count:5} x {event.key[:90]}")


def print_cosine(label: str, means: Tensor | None, exact: Tensor | None) -> None:
    if means is None or exact is None:
        return
    cosine = torch.cosine_similarity(means.double(), exact.double())
    finite = bool(means.isfinite().all())
    print(
        f"  {label}: minimum cosine of means {cosine.min():.6f}, all finite: {finite}", flush=True
    )


def attempt(label: str, part: Callable[[], Any]) -> Any:
    """Run one part; if it fails, say where and go on."""
    try:
        return part()
    except Exception:
        print(f"  {label} FAILED:\n{traceback.format_exc(limit=-4)}", flush=True)
        return None


def release(model: torch.nn.Module | None = None) -> None:
    """Give a model's memory back, whoever still holds the module."""
    if model is not None:
        model.to("meta")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- what it is measured on -------------------------------------------------------------------


def random_proteins(tokens: int, seed: int = 0) -> list[str]:
    """Proteins that fill exactly ``tokens`` with ``<cls>`` and ``<eos>`` each."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("LAGVSERTIDPKQNFYMHWC"))
    proteins: list[str] = []
    while tokens > 0:
        drawn = generator.lognormal(np.log(290), LENGTH_SIGMA)
        length = int(min(max(drawn, 30), 1022, tokens - 2))
        if tokens - length - 2 < 32:  # too little for another: the last takes it
            length = tokens - 2
        proteins.append("".join(generator.choice(letters, length)))
        tokens -= length + 2
    return proteins


def tokens_for(spec: ModelSpec, proteins: list[str]) -> Tokens:
    """The proteins' tokens; for DNA, random tokens of the same number for each."""
    tokens = tokenize_esm2(proteins)
    if spec.family is ESM2:
        return tokens
    return Tokens(np.random.default_rng(0).integers(5, 4096, len(tokens.ids)), tokens.cu_seqlens)


@torch.no_grad()
def random_model(spec: ModelSpec, device: str) -> Encoder:
    """FP32 weights as those of ``random:`` models, but drawn on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(spec)(spec)
    for name, weight in model.named_parameters():
        weight.normal_(0.0, random_scale(name, weight.shape))
        if name.endswith("norm.weight"):
            weight.add_(1.0)
    return model.eval().requires_grad_(False)


#: Names of a block's parts in fair-esm's model.
FAIR_ESM_PARTS = {
    "attention_norm": "self_attn_layer_norm",
    "out": "self_attn.out_proj",
    "mlp_norm": "final_layer_norm",
    "fc1": "fc1",
    "fc2": "fc2",
}


def fair_esm_weights(model: Any) -> dict[str, Tensor]:
    """Our weights under fair-esm's names, on the host: off the memory that is measured."""
    weights = {"embed_tokens.weight": model.embed_tokens.weight}
    for kind in ("weight", "bias"):
        weights[f"emb_layer_norm_after.{kind}"] = getattr(model.final_norm, kind)
    for k, block in enumerate(model.blocks):
        for kind in ("weight", "bias"):
            for name, theirs in FAIR_ESM_PARTS.items():
                weights[f"layers.{k}.{theirs}.{kind}"] = getattr(getattr(block, name), kind)
            for name, part in zip("qkv", getattr(block.qkv, kind).chunk(3), strict=True):
                weights[f"layers.{k}.self_attn.{name}_proj.{kind}"] = part
    return {name: weight.detach().cpu() for name, weight in weights.items()}


def compare_fair_esm(
    spec: ModelSpec,
    weights: dict[str, Tensor],
    proteins: list[str],
    exact: Tensor | None,
    bench: Bench,
) -> None:
    """Time fair-esm on the same weights and proteins, and hold our FP32 against its."""
    try:
        import esm
    except ImportError:
        print("  fair-esm is not installed", flush=True)
        return
    with torch.device(bench.device):
        model = esm.ESM2(spec.layers, spec.dim, spec.heads).eval().requires_grad_(False)
    unknown = model.load_state_dict(weights, strict=False).unexpected_keys
    assert not unknown, unknown[:3]
    means = fair_esm_means(model, proteins, bench.device)
    print_cosine("ours in FP32 against fair-esm in FP32", exact, means)
    for dtype in FAIR_ESM_TOKENS if bench.device == "cuda" else [torch.float32]:
        attempt(
            f"fair-esm, {dtype}", lambda dtype=dtype: time_fair_esm(model, dtype, proteins, bench)
        )
    release(model)


def time_fair_esm(model: Any, dtype: torch.dtype, proteins: list[str], bench: Bench) -> None:
    model.to(dtype)
    forget_rotary_tables(model)
    batches = fair_esm_batches(model, proteins, FAIR_ESM_TOKENS[dtype], bench.device)

    @torch.inference_mode()
    def run() -> None:
        for tokens in batches:
            model(tokens, repr_layers=[model.num_layers])

    label = f"fair-esm, padded to {FAIR_ESM_TOKENS[dtype]:,}, {dtype}"
    bench.line(label, run, min(bench.repeats, 3))


@torch.inference_mode()
def fair_esm_means(model: Any, proteins: list[str], device: str) -> Tensor:
    """Means over residues in the proteins' order, ``[N, D]``, one protein at a time."""
    convert, last = model.alphabet.get_batch_converter(), model.num_layers
    means = []
    for protein in proteins:
        _, _, tokens = convert([("", protein)])
        found = model(tokens.to(device), repr_layers=[last])["representations"][last]
        means.append(found[0, 1:-1].mean(0))
    return torch.stack(means)


def fair_esm_batches(model: Any, proteins: list[str], tokens: int, device: str) -> list[Tensor]:
    """``esm-extract``'s batches, already on the device."""
    from esm import FastaBatchedDataset

    dataset = FastaBatchedDataset(range(len(proteins)), proteins)
    convert = model.alphabet.get_batch_converter()
    indices = dataset.get_batch_indices(tokens, extra_toks_per_seq=1)
    return [convert([dataset[index] for index in batch])[2].to(device) for batch in indices]


def forget_rotary_tables(model: Any) -> None:
    """fair-esm keeps cosines of the last length, in the dtype that the model had then."""
    for layer in model.layers:
        layer.self_attn.rot_emb._seq_len_cached = None


if __name__ == "__main__":
    main()
