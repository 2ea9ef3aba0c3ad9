"""Sentences for the user about a submission: what changed in the input, and what may be wrong."""

from collections.abc import Iterator

from common.advice import how_to
from common.alphabet import ALPHABETS
from common.job.cleaning import LOOKS_LIKE_DNA
from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.model_source import ModelSource
from common.text import counted, counted_batches
from producer.scheduling.opening import job_queue
from producer.submission.request import Request

MEANINGLESS = (
    "{model} has random weights: these embeddings are meaningless, and only good for testing the "
    "fleet."
)


def describe_input(manifest: Manifest) -> str:
    """Return a sentence about the records read and the queue of their batches."""
    report, letters = manifest.report, ALPHABETS[manifest.alphabet]
    return (
        f"{manifest.input}: {counted(report.records, 'record')}, {report.residues:,} "
        f"{letters.plural} to embed, in {counted_batches(manifest.batches)} for queue "
        f"{job_queue(manifest)}."
    )


def describe_known(manifest: Manifest) -> Iterator[str]:
    """Yield a sentence about each kind of records that need not be computed, if there are any."""
    report = manifest.report
    for count, what in (
        (report.identical, "identical to an earlier one and computed once with it"),
        (report.reused, "taken over from earlier jobs in the store"),
    ):
        if count:
            are = "is" if count == 1 else "are"
            yield f"{count:,} of {report.records:,} sequences {are} {what}."


def reuse_warnings(request: Request, manifest: Manifest, *, resumed: bool) -> Iterator[str]:
    """Yield a warning if rows of earlier jobs were asked for, and there are none."""
    if not request.reuse or manifest.report.reused:
        return
    if resumed:
        yield "the job exists: reuse comes too late for it (new=True, --new, makes another)."
    else:
        yield (
            "no earlier job in the store has any of these sequences with this model, precision and "
            "output form: all are computed."
        )


def input_notes(manifest: Manifest, *, with_long: bool = True) -> list[str]:
    """Return a sentence for each kind of change to records of the input.

    Args:
        with_long: whether long records are one.
    """
    report, letters = manifest.report, ALPHABETS[manifest.alphabet]
    notes = {
        describe_long(manifest): report.long if with_long else 0,
        "with the id of an earlier record: all are kept, each under its row number": (
            report.duplicate_ids
        ),
        f"with unknown letters, embedded as {letters.unknown}": report.replaced,
        "with unknown letters, left out; rows keep their position in the input": report.skipped,
        "without a sequence, left out; rows keep their position in the input": report.empty,
        "shorter than min_length, left out; rows keep their position in the input": report.short,
        "with gaps (- or .), embedded by tokens of gaps, which the model was not trained on "
        "(gaps=strip removes them)": report.gapped,
        "with gaps (- or .), which were removed": report.stripped,
        "of RNA: U was read as T": report.rna,
        "of what looks like DNA or RNA, though this model is for proteins": (
            0 if report.looks_like_dna else report.like_dna
        ),
    }
    return [f"{counted(count, 'record')} {what}." for what, count in notes.items() if count]


def describe_long(manifest: Manifest) -> str:
    form, letters = manifest.form, ALPHABETS[manifest.alphabet].plural
    longer = f"longer than {form.max_residues:,} {letters}"
    if form.overlap is None:
        return f"{longer}: only that many of each were kept (long=error refuses them)"
    return (
        f"{longer}: embedded in windows of {form.max_residues:,} that overlap by at least "
        f"{form.overlap:,}, pooled by their tokens"
    )


def source_notes(request: Request) -> Iterator[str]:
    """Yield a sentence about files of folders that are not read."""
    files = request.source.left_out
    if files:
        names = ", ".join([file.rpartition("/")[2] for file in files[:3]])
        more = "" if len(files) <= 3 else f" and {len(files) - 3:,} more"
        yield (
            f"{counted(len(files), 'file')} of a folder not read, for the suffix: {names}{more} "
            "(named by themselves they are read)."
        )


def model_notes(request: Request) -> Iterator[str]:
    """Yield a sentence about a model that this machine does not have."""
    if request.model.is_stored and request.model.digest() is None:
        yield (
            f"{request.model.text} may not be listed with the credentials of this machine: only "
            "the workers can tell whether there are weights, and of which model."
        )
    if request.model.is_path and not request.model.files():
        yield (
            f"{request.model.text} has no weights on this machine: only the workers can tell "
            "whether they are there."
        )


def new_weights_warning(manifest: Manifest, other: str) -> str:
    return (
        f"the weights of {manifest.model} have changed since this input was submitted as {other}: "
        f"{manifest.job} is another job, of the new weights."
    )


def input_warnings(model: ModelSource, *, looks_like_dna: bool) -> Iterator[str]:
    """Yield a warning for each reason why all embeddings of an input may be useless."""
    if model.is_random:
        yield MEANINGLESS.format(model=model.text)
    if looks_like_dna:
        yield f"{LOOKS_LIKE_DNA}. For DNA give the model dnabert_s."


def resume_warnings(ledger: Ledger, manifest: Manifest, request: Request) -> Iterator[str]:
    """Yield a warning for each option of the request that comes too late for an existing job."""
    progress = ledger.jobs.progress(manifest.job)
    priority = manifest.priority if progress is None else progress.priority
    if priority is not request.priority:
        yield (
            f"the job keeps its priority, {priority}. To change it: "
            f"{how_to('set-priority', manifest.job, priority=str(request.priority))}"
        )
    if request.on_instability == "fail" and progress is not None and progress.finished:
        unstable = progress.unstable_at(request.rung)
        if unstable:
            yield (
                f"{counted(unstable, 'sequence')} of this finished job had no finite embedding at "
                "the first rung; on_instability fail comes too late for them."
            )
