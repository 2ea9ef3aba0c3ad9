"""``producer submit``."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from common.errors import UserError
from common.job.manifest import Manifest
from common.job.output_form import Empty, Gaps, Include, Long, ResidueDtype, Unknown
from common.ledger.progress import OnInstability
from common.model_source import with_revision
from common.paths import user_path
from common.rungs import PrecisionChoice
from common.store import Store, open_store
from common.wire.messages import Priority
from producer.cli.local import run_local
from producer.cli.options import (
    Broker,
    DtypeOption,
    Flag,
    LayoutOption,
    OutputPlace,
    Several,
    StoreUrl,
    named_fleet,
)
from producer.cli.output import write_output
from producer.cli.watch import say_how_to_wait, watch_job
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.fleet.output import Output, Place, bytes_of, output_at
from producer.fleet.output_file import Origin
from producer.output.layouts.choice import suffix_of
from producer.output.wanted import Wanted
from producer.submission.records import as_sources
from producer.submission.request import DEFAULT_MODEL, Request, make_request
from producer.submission.same_weights import job_names
from producer.submission.submit import OnStaged
from producer.terminal.console import console, print_line, say
from producer.terminal.report import report_submission


def submit(
    *inputs: Annotated[str, Parameter(name="INPUT", allow_leading_hyphen=True)],
    list_: Annotated[tuple[str, ...], Parameter(name="--from", negative="")] = (),
    sequence: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    model: str = DEFAULT_MODEL,
    revision: str | None = None,
    output: OutputPlace | None = None,
    overwrite: Annotated[bool, Flag] = False,
    layout: LayoutOption = None,
    dtype: DtypeOption = None,
    local: Annotated[bool, Flag] = False,
    include: Annotated[tuple[Include, ...], Several] = ("mean",),
    layers: Annotated[tuple[int, ...], Several] = (-1,),
    precision: PrecisionChoice = "auto",
    residue_dtype: ResidueDtype | None = None,
    unknown: Unknown = "error",
    gaps: Gaps = "keep",
    empty: Empty = "error",
    id_column: str | None = None,
    sequence_column: str | None = None,
    long: Long | None = None,
    max_residues: PositiveInt | None = None,
    overlap: NonNegativeInt | None = None,
    on_instability: OnInstability = "retry",
    batch_tokens: PositiveInt | None = None,
    priority: Priority = Priority.NORMAL,
    owner: str | None = None,
    new: Annotated[bool, Flag] = False,
    gpus: str = "all",
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Queue the sequences of FASTA files for embedding, and print the job's name.

    Submitting the same input with the same options again resumes the job.

    Parameters
    ----------
    inputs
        FASTA, FASTQ, CSV or TSV, plain or gz, bz2, xz, zst, Parquet, BAM or CRAM: files, folders,
        patterns in quotes ('**/*.fa'), - for standard input, s3://bucket/key, or
        s3://bucket/folder/. Several are one job.
    list_
        A file with the name of an input in each line.
    sequence
        A sequence itself; the first has the id seq_1. May be given several times.
    model
        Name such as esm2_t33_650M_UR50D, a folder with safetensors, a fair-esm .pt file, either
        also as s3://bucket/key, or random:NAME for random weights, to test the fleet.
    revision
        Branch, tag or commit of the model on the Hugging Face hub, also as NAME@REVISION. Only
        workers that were started with the same one take the job.
    output
        Wait for the job and write its embeddings to this file, whose suffix chooses the layout:
        .h5, .parquet, .npz, .npy, .csv, .tsv, .safetensors or .h5ad; or to this object,
        s3://bucket/key.h5. An earlier one of the same job is replaced.
    overwrite
        Replace any other file too.
    local
        Run without a fleet: start a Redis and a worker for each GPU (or one on the CPU) on this
        machine, and stop them at the end. Without -o the file is named after the input, and
        replaces only one of the same input.
    include
        Vectors to keep: mean, per_residue, bos, max, std (several: --include mean bos, or
        mean,bos), and of ESM-2 the scores logits, entropy, pseudo_perplexity_unmasked.
    layers
        Representations to keep; -1 is the last (several: --layers -1 6, or -1,6).
    precision
        auto is FP16 on GPUs and FP32 on CPUs.
    residue_dtype
        Number type of per-residue vectors; default: float16 for the last layer, which is
        normalised, float32 for others. Pooled vectors are always float32.
    unknown
        What to do with a record that has a letter outside the alphabet: refuse the input, embed
        the letter as X (of DNA: N), or skip the record.
    gaps
        What to do with the gaps (- and .) of aligned sequences: keep them, as proteins' models have
        tokens for them, strip them, or refuse the input. DNA's model has no letter for gaps.
    empty
        What to do with a record without a sequence.
    id_column
        Column of a CSV, TSV or Parquet file with the ids; default: id.
    sequence_column
        Column of such a file with the sequences; default: sequence.
    long
        What to do with a record longer than --max-residues: truncate it (default for proteins),
        embed it in overlapping windows, pooled by their tokens (default for DNA), or error.
    max_residues
        Residues or bases that are embedded in one piece; default: 1022 for ESM-2, which was
        trained on that many, 10000 for DNABERT-S.
    overlap
        Fewest letters that neighbouring windows share; default: a tenth of a window.
    on_instability
        What to do with a sequence whose embedding is not finite: compute it again in higher
        precision (retry), or stop the job (fail).
    batch_tokens
        Tokens in a batch; default: about a second's work of the workers, less for small inputs.
        Without a worker: of a GPU, or of a CPU with --precision fp32.
    priority
        Workers take batches of higher priority first; producer set-priority changes it.
    owner
        Who submits, for producer status; default: VIRNUCPRO_OWNER, or user@host.
    new
        Submit a new job, even if the same input was submitted before.
    gpus
        GPUs to use with --local: all, none for the CPU, or numbers such as 0,1.
    """
    check_options(inputs)
    with as_sources(inputs, lists=list_, sequences=sequence) as source:
        request = make_request(
            source,
            with_revision(model, revision),
            include=include,
            layers=layers,
            precision=precision,
            residue_dtype=residue_dtype,
            unknown=unknown,
            gaps=gaps,
            empty=empty,
            id_column=id_column,
            sequence_column=sequence_column,
            long=long,
            max_residues=max_residues,
            overlap=overlap,
            on_instability=on_instability,
            priority=priority,
            owner=owner,
            new=new,
        )
        wanted = Wanted(layout=layout, dtype=dtype)
        if local:
            kept = None if store is None else open_store(store)
            file = output_file(request, output, kept, overwrite=overwrite, wanted=wanted)
            start = partial(enqueue, request=request, batch_tokens=batch_tokens, output=file)
            run_local(start, file, model=request.model, precision=precision, gpus=gpus, store=store)
            return
        fleet = named_fleet(broker=broker, store=store)
        if output is None:
            if wanted.options():
                raise UserError(f"{wanted.options()[0]} is of an output: name one with -o.")
            queue(fleet, request, batch_tokens)
        else:
            file = output_file(request, output, fleet.store, overwrite=overwrite, wanted=wanted)
            submit_and_fetch(fleet, request, file, batch_tokens)


def check_options(inputs: Iterable[str]) -> None:
    """Refuse an unknown option, which is among the inputs because of ``-``.

    Raises:
        UserError: there is one.
    """
    for name in inputs:
        if name.startswith("-") and name != "-" and not Path(name).exists():
            raise UserError(
                f"Unknown option: {name}. producer submit --help lists all; a file of this name "
                f"is ./{name}."
            )


def output_file(
    request: Request,
    place: Place | None,
    store: Store | None,
    *,
    overwrite: bool,
    wanted: Wanted | None = None,
) -> Output:
    """Return the file for a request's embeddings; without a place it is named after the input."""
    source = request.source

    def is_ours(found: Origin) -> bool:
        if place is None and found.input_fingerprint == source.fingerprint:
            return True
        digest = request.model.digest()
        return any(found.is_of(job, digest) for job in job_names(request, digest))

    return output_at(
        place or user_path(f"./{source.stem}{suffix_of(wanted.layout if wanted else None)}"),
        is_ours=is_ours,
        inputs=[part.name for part in source.parts],
        model=request.model,
        store=store,
        overwrite=overwrite,
        wanted=wanted,
        form=request.form,
    )


def queue(fleet: Fleet, request: Request, batch_tokens: int | None) -> None:
    """Queue a job for workers elsewhere, and print its name."""
    job = enqueue(fleet, request, batch_tokens)
    say("Queued.")
    say_how_to_wait(job.name)
    print_line(job.name)


def submit_and_fetch(
    fleet: Fleet, request: Request, output: Output, batch_tokens: int | None
) -> None:
    """Queue a job for workers elsewhere, wait for it, and write its file."""
    output.check()
    job = enqueue(fleet, request, batch_tokens, output)
    watch_job(job, output)
    write_output(job, output)


def enqueue(
    fleet: Fleet, request: Request, batch_tokens: int | None, output: Output | None = None
) -> Job:
    """Queue a job whose output has room, and print what was read."""
    spec = request.model.spec()

    def check(manifest: Manifest) -> None:
        if output is not None and spec is not None:  # else a worker alone knows the size
            output.check_room(bytes_of(output, manifest, spec.dim))

    with staging_display() as show:
        submission = fleet.enqueue(request, batch_tokens=batch_tokens, on_staged=show, check=check)
    report_submission(submission)
    return fleet.job(submission.job)


@contextmanager
def staging_display() -> Iterator[OnStaged]:
    """Yield a function that shows how much of the input is read."""
    with console.status("Reading the input …") as status:

        def show(records: int, batches: int) -> None:
            status.update(f"Reading the input: {records:,} records in {batches:,} batches …")

        yield show
