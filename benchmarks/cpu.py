"""This project's packed engine on a CPU, beside the machine's limit and other implementations.

    python -m benchmarks.cpu [--fasta PATH] [--models NAME ...] [--records N] [--repeats N]
                             [--processor-time]

All embed the same records in the same process and take turns; each turn gives one ratio of
throughputs. They are:

- the matrix products alone (``benchmarks.matrix_products``), of which no implementation can take
  less than all: the ratio is this project's share of the machine's limit;
- fair-esm as in ``esm-extract``: sequences sorted by length, padded batches of 4096 tokens, the
  mean over each sequence's residues;
- ONNX Runtime and OpenVINO, if they are installed (``benchmarks.onnx_peers``), with the same
  batches.

On a machine that others use too, take ``OMP_NUM_THREADS=1`` and ``--processor-time``: the time in
which this process did not run is then left out. With several threads it would count how they wait
for each other.
"""

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import esm
import torch
from esm import FastaBatchedDataset
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import onnx_peers
from benchmarks.inputs import token_count, tokens_for
from benchmarks.machine import describe_package
from benchmarks.matrix_products import matrix_products
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ESM2, MODELS
from common.rungs import Rung
from tests.support.fair_esm import ALPHABET, load_fair_esm, random_fair_esm, save_fair_esm
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import load_model

FASTA = Path(__file__).parents[2] / "shared" / "data" / "disprot_proteins.fasta"

#: A run over all records.
Entrant = Callable[[], object]

#: What is timed.
OURS, LIMIT, FAIR_ESM = "this project", "matrix products alone", "fair-esm FP32"

#: Packages whose versions are printed with the results.
PACKAGES = ("fair-esm", "transformers", "onnxruntime", "openvino")

FORM = OutputForm(max_residues=ESM2.max_residues)


def main() -> None:
    options = parse_options()
    console = Console()
    console.width = max(console.width, 100)  # a pipe's 80 columns would cut the names
    proteins = sample(options.fasta, options.records)
    clock = time.process_time if options.processor_time else time.perf_counter
    versions = [describe_package(name) for name in PACKAGES]
    console.print(
        f"{len(proteins)} records of {options.fasta.name}, {sum(map(len, proteins)):,} residues; "
        f"{cpu_name()}, {torch.get_num_threads()} threads; torch {torch.__version__}, "
        f"{', '.join(versions)}, Python {platform.python_version()}"
    )
    table = Table(
        "model", "precision", "implementation", "tokens/s", "ratio", "min", "max", "cosine"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            path = save_fair_esm(random_fair_esm(MODELS[name]), Path(folder) / f"{name}.pt")
            for rung in fast_precisions():
                entrants = gather(path, rung, proteins, options.pack_tokens)
                for row in compare(entrants, proteins, options.repeats, clock):
                    table.add_row(name, str(rung), *row)
                table.add_section()
    console.print(table)
    console.print("ratio: tokens/s of this project by theirs, the median of the turns")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fasta", type=Path, default=FASTA)
    parser.add_argument("--models", nargs="+", default=list(MODELS)[:3], choices=MODELS)
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true", help="instead of elapsed time")
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


def gather(
    path: Path, rung: Rung, proteins: list[str], pack_tokens: int | None
) -> dict[str, Entrant | None]:
    """Return runs by the names of what they time; None for what is not installed.

    Runs of this project and of fair-esm, which have the same weights, return mean vectors.
    """
    peer, engine = load_fair_esm(path), make_engine(path, rung, pack_tokens)
    spec = engine.loaded.spec
    tokens = tokens_for(spec, proteins)
    limit = matrix_products(engine.loaded.model, tokens, engine.pack_tokens[engine.precision])
    entrants: dict[str, Entrant | None] = {
        OURS: lambda: embed_packed(engine, proteins),
        LIMIT: limit,
        FAIR_ESM: lambda: embed_fair_esm(peer, proteins),
    }
    for package, name, load in (
        ("onnxruntime", "ONNX Runtime FP32", onnx_peers.onnx_runtime),
        ("openvino", f"OpenVINO {rung.upper()}", partial(onnx_peers.openvino, rung=rung)),
    ):
        absent = onnx_peers.missing(package)
        if absent:
            entrants[f"{name}: no {', '.join(absent)}"] = None
        else:
            exported = onnx_peers.export(spec, path.parent)
            entrants[name] = onnx_peers.over(onnx_peers.inputs(spec, proteins), load(exported))
    return entrants


def compare(
    entrants: dict[str, Entrant | None],
    proteins: list[str],
    repeats: int,
    clock: Callable[[], float],
) -> Iterator[tuple[str, ...]]:
    """Yield a table row for each of the ``entrants``."""
    runs = {name: run for name, run in entrants.items() if run is not None}
    vectors = {name: run() for name, run in runs.items()}  # the first turn warms up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    tokens = token_count(map(len, proteins))
    for name in entrants:
        yield (name, *(figures(name, seconds, vectors, tokens) if name in runs else ()))


def figures(
    name: str, seconds: dict[str, list[float]], vectors: dict[str, object], tokens: int
) -> tuple[str, ...]:
    """Return tokens/s, the ratio with its least and most, and the least cosine to fair-esm's."""
    turns = zip(seconds[name], seconds[OURS], strict=True)
    ratios = [theirs / ours for theirs, ours in turns]
    cosine = ""
    if isinstance(found := vectors[name], Tensor):
        cosine = f"{torch.cosine_similarity(vectors[FAIR_ESM], found).min():.6f}"
    return (
        f"{tokens / statistics.median(seconds[name]):,.0f}",
        *(f"{figure:.2f}" for figure in (statistics.median(ratios), min(ratios), max(ratios))),
        cosine,
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
