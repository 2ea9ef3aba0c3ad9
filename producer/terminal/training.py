"""How the training of a classifier goes, as text."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.text import counted
from producer.terminal.console import console, say
from producer.virnucpro.training_report import Epoch, TrainingReport


@contextmanager
def training_display(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """Yield a function that shows the loss after each epoch."""
    with console.status("Training …") as status:

        def show(epoch: Epoch) -> None:
            status.update(
                f"Training: epoch {epoch.number} of {epochs} at most, held-out loss "
                f"{epoch.held_out_loss:.4f} …"
            )

        yield show


def report_training(report: TrainingReport, files: tuple[Path, ...]) -> None:
    """Print how well a classifier tells held-out contigs apart."""
    held_out = report.held_out
    contigs = held_out.contigs.virus + held_out.contigs.others
    say(
        f"Held out: {counted(contigs, 'contig')} ({held_out.contigs.virus:,} of viruses). "
        f"Accuracy {report.chunks.accuracy:.3f} of chunks, {report.frames.accuracy:.3f} of frames; "
        f"AUROC {report.chunks.auroc:.3f} and {report.frames.auroc:.3f}; calibration error "
        f"{report.frames.expected_calibration_error:.3f}."
    )
    if report.frames_not_finite:
        say(f"Left out: {counted(report.frames_not_finite, 'frame')} without an embedding.")
    say(f"Wrote {', '.join(map(str, files))}.")
