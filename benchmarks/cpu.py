"""This project's packed engine against fair-esm's batching on a CPU: same run, same weights.

    python -m benchmarks.cpu [--fasta PATH] [--models NAME ...] [--records N] [--repeats N]

fair-esm runs as in ``esm-extract``: sequences sorted by length, padded batches of 4096 tokens, the
mean over each sequence's residues. The throughputs over the same records are compared; the two take
turns, and each turn gives one ratio.
"""

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import esm
import torch
from esm import FastaBatchedDataset
from rich.console import Console
from rich.table import Table
from torch import Tensor

from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ESM2, MODELS
from common.rungs import Rung
from tests.support.fair_esm import ALPHABET, load_fair_esm, random_fair_esm, save_fair_esm
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import load_model

FASTA = Path(__file__).parents[2] / "shared" / "data" / "disprot_proteins.fasta"
FORM = OutputForm(max_residues=ESM2.max_residues)


def main() -> None:
    options = parse_options()
    console = Console()
    console.width = max(console.width, 100)  # a pipe's 80 columns would cut the names
    proteins = sample(options.fasta, options.records)
    residues = sum(map(len, proteins))
    console.print(
        f"{len(proteins)} records of {options.fasta.name}, {residues:,} residues; "
        f"{cpu_name()}, {torch.get_num_threads()} threads; torch {torch.__version__}, "
        f"fair-esm {esm.__version__}, Python {platform.python_version()}"
    )
    table = Table("model", "precision", "residues/s", "fair-esm", "ratio", "min", "max", "cosine")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            path = save_fair_esm(random_fair_esm(MODELS[name]), Path(folder) / f"{name}.pt")
            for row in compare(path, proteins, options.repeats, options.pack_tokens):
                table.add_row(name, *row)
    console.print(table)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fasta", type=Path, default=FASTA)
    parser.add_argument("--models", nargs="+", default=list(MODELS)[:2], choices=MODELS)
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pack-tokens", type=int, help="instead of the engine's own choice")
    options = parser.parse_args()
    if not options.fasta.is_file():
        parser.error(f"{options.fasta}: no such file; name a protein FASTA with --fasta")
    return options


def sample(fasta: Path, count: int) -> list[str]:
    """Return ``count`` proteins of at most 1022 residues, the same every time."""
    proteins = FastaBatchedDataset.from_file(fasta).sequence_strs
    short = [protein for protein in proteins if len(protein) <= ESM2.max_residues]
    return random.Random(0).sample(short, min(count, len(short)))


def compare(
    path: Path, proteins: list[str], repeats: int, pack_tokens: int | None
) -> list[tuple[str, ...]]:
    """Return a table row for each precision in which this CPU is fast."""
    peer = load_fair_esm(path)
    engines = {rung: make_engine(path, rung, pack_tokens) for rung in fast_precisions()}
    runs: dict[str, Callable[[], Tensor]] = {"fair-esm": lambda: embed_fair_esm(peer, proteins)}
    for rung, engine in engines.items():
        runs[rung] = lambda engine=engine: embed_packed(engine, proteins)
    vectors = {name: run() for name, run in runs.items()}  # the first turn warms up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return [row(rung, seconds, vectors, sum(map(len, proteins))) for rung in engines]


def row(
    rung: Rung, seconds: dict[str, list[float]], vectors: dict[str, Tensor], residues: int
) -> tuple[str, ...]:
    pairs = zip(seconds["fair-esm"], seconds[rung], strict=True)
    ratios = [peer / own for peer, own in pairs]
    cosine = torch.cosine_similarity(vectors["fair-esm"], vectors[rung]).min()
    speeds = [residues / statistics.median(seconds[name]) for name in (rung, "fair-esm")]
    figures = [statistics.median(ratios), min(ratios), max(ratios)]
    return (
        str(rung),
        *(f"{speed:,.0f}" for speed in speeds),
        *(f"{figure:.2f}" for figure in figures),
        f"{cosine:.6f}",
    )


@torch.inference_mode()
def embed_fair_esm(model: esm.ESM2, proteins: list[str]) -> Tensor:
    """Return means ``[n, D]`` as by ``esm-extract --include mean --toks_per_batch 4096``."""
    dataset = FastaBatchedDataset(range(len(proteins)), proteins)
    convert, last = ALPHABET.get_batch_converter(), model.num_layers
    means: dict[int, Tensor] = {}
    for batch in dataset.get_batch_indices(4096, extra_toks_per_seq=1):
        labels, strings, tokens = convert([dataset[index] for index in batch])
        found = model(tokens, repr_layers=[last])["representations"][last]
        for label, string, hidden in zip(labels, strings, found, strict=True):
            means[label] = hidden[1 : len(string) + 1].mean(0).clone()
    return torch.stack([means[index] for index in range(len(proteins))])


def embed_packed(engine: Engine, proteins: list[str]) -> Tensor:
    """Return mean vectors ``[n, D]`` as a worker computes them."""
    records = [Record(index, str(index), protein) for index, protein in enumerate(proteins)]
    return torch.from_numpy(engine.embed(records, FORM).embeddings.pooled["mean"])


def make_engine(path: Path, rung: Rung, pack_tokens: int | None) -> Engine:
    engine = Engine(load_model(str(path), dtype=DTYPES[rung]))
    if pack_tokens is not None:
        engine.pack_tokens = dict.fromkeys(engine.models, pack_tokens)
    return engine


def fast_precisions() -> list[Rung]:
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return [Rung.FP32, Rung.BF16] if has_bf16 else [Rung.FP32]


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
