"""``producer submit``."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, NamedTuple

from common.errors import UserError
from common.job.manifest import Manifest
from common.ledger.progress import OnInstability
from common.paths import user_path
from common.store import Store, open_store
from common.wire.messages import Priority
from producer.cli.joint import joint_output_of, queue_joint, submit_and_fetch_joint
from producer.cli.joint_local import run_joint_locally
from producer.cli.local import run_local
from producer.cli.options import (
    Broker,
    DtypeOption,
    Flag,
    LayoutOption,
    OutputPlace,
    StoreUrl,
    named_fleet,
)
from producer.cli.output import write_while_it_runs
from producer.cli.reading import USUAL, Inputs, Reading, check_options
from producer.cli.translating import UNTRANSLATED, Asked, Translating, requests_of
from producer.cli.watch import say_how_to_wait
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.fleet.output import Output, Place, bytes_of, output_at
from producer.fleet.output_file import Origin
from producer.output.layouts.choice import suffix_of
from producer.output.wanted import Wanted
from producer.submission.request import Options, Request
from producer.submission.same_weights import job_names
from producer.submission.submit import OnStaged
from producer.terminal.console import console, print_line, say
from producer.terminal.frames import report_frames
from producer.terminal.report import report_submission


def submit(
    *inputs: Inputs,
    reading: Reading = USUAL,
    translating: Translating = UNTRANSLATED,
    output: OutputPlace | None = None,
    overwrite: Annotated[bool, Flag] = False,
    layout: LayoutOption = None,
    dtype: DtypeOption = None,
    local: Annotated[bool, Flag] = False,
    on_instability: OnInstability = "retry",
    priority: Priority = Priority.NORMAL,
    owner: str | None = None,
    new: Annotated[bool, Flag] = False,
    reuse: Annotated[bool, Flag] = False,
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
    on_instability
        What to do with a sequence whose embedding is not finite: compute it again in higher
        precision (retry), or stop the job (fail).
    priority
        Workers take batches of higher priority first; producer set-priority changes it.
    owner
        Who submits, for producer status; default: VIRNUCPRO_OWNER, or user@host.
    new
        Submit a new job, even if the same input was submitted before.
    reuse
        Take over from earlier jobs in the store what they have computed with the same weights, for
        the same sequences in the same output form, and compute only the rest.
    gpus
        GPUs to use with --local: all, none for the CPU, or numbers such as 0,1.
    """
    check_options(inputs, "submit")
    if reuse and local and store is None:
        raise UserError(
            "--reuse takes rows of earlier jobs from their store, and without --store a local job "
            "has an empty one: name a folder with --store, in this run and in later ones."
        )
    more: Options = {
        "on_instability": on_instability,
        "priority": priority,
        "owner": owner,
        "new": new,
        "reuse": reuse,
    }
    wanted = Wanted(layout=layout, dtype=dtype)
    if wanted.options() and output is None and not local:
        raise UserError(f"{wanted.options()[0]} is of an output: name one with -o.")
    with (
        reading.source(inputs) as source,
        requests_of(reading, translating, source, **more) as asked,
    ):
        if asked.frames is not None:
            report_frames(asked.frames)
        place = Placing(output, overwrite=overwrite, wanted=wanted)
        if local:
            run_here(asked, place, reading, gpus=gpus, store=store)
        else:
            fleet = named_fleet(broker=broker, store=store)
            run_on_fleet(fleet, asked, place, reading.batch_tokens)


class Placing(NamedTuple):
    """Where embeddings are to be written, as the options say."""

    place: Place | None  # None: nowhere; on this machine: beside the input
    overwrite: bool
    wanted: Wanted


def run_here(
    asked: Asked, placing: Placing, reading: Reading, *, gpus: str, store: str | None
) -> None:
    """Run what is asked for on this machine, to its file."""
    kept = None if store is None else open_store(store)
    if len(asked.requests) > 1:
        output = joint_output_of(asked, *placing, kept)
        start = partial(enqueue, batch_tokens=reading.batch_tokens)
        run_joint_locally(asked, output, start, gpus=gpus, store=store)
        return
    request = asked.requests[0]
    output = output_file(
        request, placing.place, kept, overwrite=placing.overwrite, wanted=placing.wanted
    )
    run_local(
        partial(enqueue, request=request, batch_tokens=reading.batch_tokens, output=output),
        output,
        model=request.model,
        precision=reading.precision,
        gpus=gpus,
        store=store,
    )


def run_on_fleet(fleet: Fleet, asked: Asked, placing: Placing, batch_tokens: int | None) -> None:
    """Queue what is asked for; if there is a place for its file, wait for that."""
    if len(asked.requests) > 1:
        start = partial(enqueue, batch_tokens=batch_tokens)
        if placing.place is None:
            queue_joint(fleet, asked, start)
        else:
            output = joint_output_of(asked, *placing, fleet.store)
            submit_and_fetch_joint(fleet, asked, output, start)
        return
    request = asked.requests[0]
    if placing.place is None:
        queue(fleet, request, batch_tokens)
    else:
        output = output_file(
            request, placing.place, fleet.store, overwrite=placing.overwrite, wanted=placing.wanted
        )
        submit_and_fetch(fleet, request, output, batch_tokens)


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
        models=[request.model],
        store=store,
        overwrite=overwrite,
        wanted=wanted,
        form=request.form,
    )


def queue(fleet: Fleet, request: Request, batch_tokens: int | None) -> None:
    """Queue a job for workers elsewhere, and print its name."""
    job = enqueue(fleet, request, batch_tokens=batch_tokens)
    say("Queued.")
    say_how_to_wait(job.name)
    print_line(job.name)


def submit_and_fetch(
    fleet: Fleet, request: Request, output: Output, batch_tokens: int | None
) -> None:
    """Queue a job for workers elsewhere, wait for it, and write its file."""
    output.check()
    job = enqueue(fleet, request, batch_tokens=batch_tokens, output=output)
    write_while_it_runs(job, output)


def enqueue(
    fleet: Fleet, request: Request, *, batch_tokens: int | None, output: Output | None = None
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
