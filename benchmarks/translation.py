"""Contigs to frames: megabases of DNA per second, on one core.

    python -m benchmarks.translation [--megabases 50] [--repeats 5]

*command* is ``producer translate`` with its FASTA files, from its start to its end; the other
columns are the translation of records in memory. *random* DNA has hardly a frame in chunks of 500
bases; *coding* DNA has one in nearly each, as contigs of viruses have.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from common.job.records import Record
from producer.translation.frames import translate
from producer.translation.options import Translation

STOPS = ("TAA", "TAG", "TGA")
CODONS = [codon for codon in map("".join, product("ACGT", repeat=3)) if codon not in STOPS]

#: Bases of the shortest and of the longest contig.
LENGTHS = 300, 50_000


def main() -> None:
    options = parse_options()
    draw = random.Random(0)
    bases = options.megabases * 1_000_000
    kinds = {
        "random": contigs(bases, "".join(draw.choices("ACGT", k=1_000_000)), draw),
        "coding": contigs(bases, "".join(draw.choices(CODONS, k=333_333)), draw),
    }
    console, table = Console(), Table("DNA", "frames", "chunks of 500", "of 300", "orfs", "command")
    for name, records in kinds.items():
        kinds_of_frames = Translation(), Translation(chunk=300), Translation.of("orfs")
        speeds = [
            speed(partial(frames_of, records, translation), bases, options.repeats)
            for translation in kinds_of_frames
        ]
        whole = command(records, bases, options.repeats)
        frames = frames_of(records, Translation())
        table.add_row(name, f"{frames:,}", *(f"{one:.0f} Mb/s" for one in (*speeds, whole)))
    console.print(table)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabases", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def contigs(bases: int, pool: str, draw: random.Random) -> list[Record]:
    """Return contigs of lengths that are as frequent in each factor of ten."""
    found: list[Record] = []
    shortest, longest = LENGTHS
    while bases > 0:
        length = int(shortest * (longest / shortest) ** draw.random())
        start = draw.randrange(len(pool) - length)
        found.append(Record(len(found), f"contig_{len(found)}", pool[start : start + length]))
        bases -= length
    return found


def frames_of(records: list[Record], translation: Translation) -> int:
    return sum(len(block.frames) for block in translate(records, translation))


def speed(run: Callable[[], object], bases: int, repeats: int) -> float:
    """Return megabases per second, the median."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return bases / statistics.median(seconds) / 1e6


def command(records: list[Record], bases: int, repeats: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "".join(f">{record.header}\n{record.residues}\n" for record in records)
        (folder / "contigs.fna").write_text(text)
        words = [sys.executable, "-m", "producer.cli", "translate", str(folder / "contigs.fna")]
        words += ["-o", str(folder / "f.faa"), "--dna", str(folder / "f.fna"), "--overwrite"]

        def run() -> None:
            subprocess.run(words, check=True, stderr=subprocess.DEVNULL)

        return speed(run, bases, repeats)


if __name__ == "__main__":
    main()
