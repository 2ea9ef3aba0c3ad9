"""A simulation of many GPUs that share one producer, one Redis and one store.

    python -m benchmarks.scaling [--gpus 1 2 4 ...] [--model NAME] [--include mean]
        [--store s3] [--folder-speed 2000] [--proteins 1e7 1e8] [--figure FILE.svg]
        [--hash-rate 6000] [--staging-rate 600] [--fetch-rate 1600] [--first-batch 3] [--tail 0.3]

It shows at how many GPUs each shared part becomes the bottleneck, with the costs that
``benchmarks.costs`` measured, and how much of the GPUs' speed one job alone has, from the start of
``producer submit -o`` to its file. The picture has the latter.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.costs import MEASURED
from benchmarks.one_job import ProducerCosts
from benchmarks.scaling_figure import draw_shares
from benchmarks.simulated import S3, TOKENS_PER_SECOND, USUAL, Fleet, fleet_of, folder
from common.job.output_form import OutputForm


def table(
    fleet: Fleet, counts: Sequence[int], alone: Mapping[int, Mapping[int, float]]
) -> Iterator[str]:
    """Yield the simulated fleet as lines of Markdown, without parts that have no limit.

    Args:
        counts: of GPUs.
        alone: for jobs of some proteins, the share of linear for each count.
    """
    own = fleet.batch.tokens / fleet.gpu_seconds
    full = {part: gpus for part, gpus in fleet.full_at().items() if gpus < math.inf}
    columns = "".join(f" one job of {proteins:,} |" for proteins in alone)
    yield f"| GPUs | million tokens/s | of linear |{columns} {' | '.join(full)} |"
    yield "| ---: " * (3 + len(alone) + len(full)) + "|"
    for gpus in counts:
        busy, linear = fleet.busy(gpus), gpus * own
        shares = [busy["GPU"], *(found[gpus] for found in alone.values())]
        shares += [busy[part] for part in full]
        cells = [str(gpus), f"{1e-6 * busy['GPU'] * linear:.4g}", *(f"{s:.1%}" for s in shares)]
        yield f"| {' | '.join(cells)} |"
    parts = (f"{part} at {full[part]:,.0f}" for part in sorted(full, key=full.__getitem__))
    yield f"\nNumber of GPUs that keeps each part busy: {', '.join(parts)}."
    yield f"{fleet.gpus_of_a_file:,.1f} GPUs compute one job as fast as its file is written."


def details(fleet: Fleet, gpus: int, proteins: int) -> str:
    """Return the times of one job alone as a line."""
    times = fleet.one_job(gpus, proteins)
    return (
        f"One job of {proteins:,} proteins on {gpus} GPUs: first batch queued at "
        f"{times.first_queued:,.0f} s, staged at {times.staged:,.0f} s, computed at "
        f"{times.computed:,.0f} s, file at {times.written:,.0f} s."
    )


def main() -> None:
    options = parse_options()
    form = OutputForm(include=(options.include,), max_residues=1022)
    store = S3 if options.store == "s3" else folder(1e6 * options.folder_speed)
    producer = ProducerCosts(
        hash_rate=1e6 * options.hash_rate,
        first_batch=options.first_batch,
        staging_rate=1e6 * options.staging_rate,
        fetch_rate=1e6 * options.fetch_rate,
        tail=options.tail,
    )
    fleet = fleet_of(options.model, form, store, MEASURED, producer)
    jobs = [round(proteins) for proteins in options.proteins]
    print(fleet.batch, end="\n\n")
    alone = {
        proteins: {gpus: fleet.share_of_linear(gpus, proteins) for gpus in options.gpus}
        for proteins in jobs
    }
    print(*table(fleet, options.gpus, alone), sep="\n")
    print(*(details(fleet, max(options.gpus), proteins) for proteins in jobs), sep="\n")
    if options.figure is not None:
        draw_shares(alone, options.figure)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    counts, usual = [1, 2, 4, 8, 16, 32, 64, 128, 256], USUAL
    parser.add_argument("--gpus", type=int, nargs="+", default=counts)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=TOKENS_PER_SECOND)
    parser.add_argument("--include", default="mean", choices=["mean", "per_residue"])
    parser.add_argument("--store", default="s3", choices=["s3", "folder"])
    parser.add_argument("--folder-speed", type=float, default=2000, help="MB/s")
    parser.add_argument("--proteins", type=float, nargs="*", default=[1e7, 1e8], help="of a job")
    for name in ("hash_rate", "staging_rate", "fetch_rate"):
        rate = getattr(usual, name) / 1e6
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=rate, help="MB/s")
    parser.add_argument("--first-batch", type=float, default=usual.first_batch, help="seconds")
    parser.add_argument("--tail", type=float, default=usual.tail, help="seconds")
    parser.add_argument("--figure", type=Path, help="picture of the jobs alone, .svg or .png")
    return parser.parse_args()


if __name__ == "__main__":
    main()
