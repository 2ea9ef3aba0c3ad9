"""What a prediction found, as text."""

from pathlib import Path

from common.embeddings.arrays import Array
from common.text import counted
from producer.terminal.console import say, warn
from producer.virnucpro.prediction import Prediction
from producer.virnucpro.sampling import Comparison

#: Bases below which a sequence is a short read: VirNucPro's smallest chunk.
SHORT = 300

#: What Broad reports of FP16 against the original, as a yardstick: frames and chunks that agree.
AGREEING_FRAMES, AGREEING_CHUNKS = "99.82 %", "98.22 %"


def warn_of_short_contigs(lengths: Array) -> None:
    """Warn if most sequences are too short for the classifier."""
    short = int((lengths < SHORT).sum())
    if 2 * short > len(lengths):
        warn(
            f"Most sequences ({short:,} of {len(lengths):,}) are shorter than {SHORT} bases. "
            "VirNucPro's accuracy falls from 0.90 to 0.53 on reads of 150 bases (figures of the "
            "Broad Institute's fork): assemble reads first."
        )


def report_prediction(prediction: Prediction, folder: Path, *, grouped: bool) -> None:
    """Print the number of contigs by their call."""
    what = "group" if grouped else "contig"
    for call, tiers in prediction.counts().items():
        count = counted(sum(tiers.values()), what)
        if tiers and call == "none":
            say(f"No call: {count}, of which nothing has a score.")
        elif tiers:
            parts = [f"{number:,} {tier.replace('_', ' ')}" for tier, number in tiers.items()]
            say(f"{call}: {count} ({', '.join(parts)}).")
    if prediction.frames_without_score:
        warn(
            f"{counted(prediction.frames_without_score, 'frame')} without a score, as a model has "
            "no embedding of it: in no line of the results, and counted in contigs.tsv."
        )
    say(f"Wrote {folder}.")


def report_comparison(found: Comparison) -> None:
    """Print what differs in FP32."""
    agree = 1 - found.frames_changed / max(1, found.frames)
    chunks = 1 - found.chunks_changed / max(1, found.chunks)
    say(
        f"Compared with FP32: {found.frames_changed:,} of {counted(found.frames, 'frame')} and "
        f"{found.chunks_changed:,} of {counted(found.chunks, 'chunk')} change their label "
        f"({agree:.2%} and {chunks:.2%} agree; the Broad Institute's fork has {AGREEING_FRAMES} "
        f"and {AGREEING_CHUNKS} with the original). Scores differ by {found.largest:.2g} at most."
    )
