"""Messages at the beginning and the end of a job: records read, results, failures."""

from common.advice import how_to
from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.text import counted, counted_batches
from common.wire.messages import Status
from producer.output.fetch import Fetched
from producer.scheduling.waiting import first_lines, problems
from producer.submission.notes import describe_input, describe_known
from producer.submission.submit import Submission
from producer.terminal.console import say, warn


def report_submission(submission: Submission) -> None:
    """Print what was read, with all notes and warnings."""
    manifest = submission.manifest
    if submission.resumed:
        say(
            f"This input was submitted before: resuming job {manifest.job}, {submission.left:,} "
            f"of {counted_batches(manifest.batches)} to do."
        )
    say(describe_input(manifest))
    for sentence in describe_known(manifest):
        say(sentence)
    for note in submission.notes:
        say(f"Note: {note}")
    for warning in submission.warnings:
        warn(warning)


def report_failures(ledger: Ledger, manifest: Manifest) -> bool:
    """Print which batches of a finished job failed; return whether any did."""
    results = ledger.results.all(manifest.job)
    failed = [result for result in results if result.status is Status.FAILED]
    for line in problems(failed):
        say(line)
    if failed:
        say(
            f"{len(failed):,} of {counted_batches(manifest.batches)} failed. To try again: "
            f"{how_to('retry', manifest.job)}"
        )
    return bool(failed)


def report_quarantined(ledger: Ledger, manifest: Manifest) -> None:
    """Print the quarantined rows that the ledger knows."""
    results = [result for result in ledger.results.all(manifest.job) if result.quarantined]
    for line in problems(results):
        say(line)


def report_fetched(fetched: Fetched, reasons: str) -> None:
    """Print what the file of a finished job contains.

    Args:
        reasons: where all reasons are why rows have no embedding.
    """
    say(f"Wrote {counted(fetched.rows, 'embedding')} to {fetched.path}.")
    if len(fetched.precisions) > 1:
        parts = (f"{count:,} in {name}" for name, count in fetched.precisions.items())
        say(f"Computed {', '.join(parts)}: see 'precision'.")
    if fetched.quarantined:
        say(
            f"Without an embedding (NaN, precision 'none'): "
            f"{counted(len(fetched.quarantined), 'row')} whose forward pass was not finite at any "
            f"rung, or crashed its worker. {reasons}"
        )
        for line in first_lines(fetched.quarantined):
            say(f"  {line}")
    report_warnings(fetched)


def report_exported(exported: Fetched) -> None:
    """Print what a file contains that was made from another."""
    say(f"Wrote {counted(exported.rows, 'embedding')} to {exported.path}.")
    without = exported.rows - sum(exported.precisions.values())
    if without:
        say(f"Without an embedding (NaN, precision 'none'): {counted(without, 'row')}.")
    report_warnings(exported)


def report_warnings(fetched: Fetched) -> None:
    if fetched.warning:
        warn(f"{fetched.warning}.")
    if fetched.partial:
        warn(f"{fetched.path} is partial: it has the rows of {fetched.partial} of the job.")


def report_damage(manifest: Manifest, damage: list[str]) -> None:
    """Print what is missing or damaged of a job, or that nothing is."""
    for problem in damage:
        say(problem)
    if damage:
        say(f"{counted(len(damage), 'problem')} in {counted_batches(manifest.batches)}.")
    else:
        verb = "is" if manifest.batches == 1 else "are"
        say(f"{counted_batches(manifest.batches)} {verb} complete and undamaged.")
