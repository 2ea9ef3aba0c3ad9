"""What became of contigs that were translated, as text."""

from common.text import counted
from producer.submission.frames import Frames
from producer.terminal.console import say, warn


def report_frames(frames: Frames) -> None:
    """Print the counts of a translation, with what is left out."""
    report = frames.report
    say(
        f"Translated {counted(report.contigs, 'contig')} ({report.bases:,} bases, "
        f"{counted(report.chunks, 'chunk')}): {counted(report.frames, 'frame')}."
    )
    if report.chunks_without_frame:
        what = "no frame without a stop" if report.kind == "six-frame" else "no stretch as long"
        say(
            f"Left out: {counted(report.chunks_without_frame, 'chunk')} with {what}, and with them "
            f"all of {counted(report.contigs_without_frame, 'contig')}."
        )
    if frames.duplicate_ids:
        warn(
            f"{counted(frames.duplicate_ids, 'contig')} with the name of an earlier one: each is "
            "kept apart by its place in the input."
        )
