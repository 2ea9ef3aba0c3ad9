"""Joint jobs: queued on a fleet, waited for and fetched."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product

from common.errors import JobEndedError, UserError
from common.store import Store
from producer.cli.translating import Asked
from producer.cli.watch import say_how_to_wait, watch_job
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.fleet.joint import JointJob, joint_output
from producer.fleet.output import Output, Place
from producer.output.wanted import Wanted
from producer.submission.joint import joint_name
from producer.submission.request import Request
from producer.submission.same_weights import job_names
from producer.terminal.console import console, print_line, say
from producer.terminal.report import report_fetched

#: Queues the job of one request on a fleet, and prints what was read.
Enqueue = Callable[[Fleet, Request], Job]


def joint_output_of(
    asked: Asked, place: Place | None, overwrite: bool, wanted: Wanted, store: Store | None
) -> Output:
    """Return the file of a joint job; without a place it is named after the input."""
    jobs = [job_names(request, request.model.digest()) for request in asked.requests]
    report = None if asked.frames is None else asked.frames.report
    joint = {joint_name(names, report) for names in product(*jobs)}
    return joint_output(
        place or f"./{asked.source.stem}.h5",
        names=joint.union(*jobs),
        inputs=[part.name for part in asked.source.parts],
        models=[request.model.text for request in asked.requests],
        store=store,
        overwrite=overwrite,
        wanted=wanted,
    )


def queue_joint(fleet: Fleet, asked: Asked, enqueue: Enqueue) -> None:
    """Queue a joint job for workers elsewhere, and print its name."""
    joint = queue_all(fleet, asked, enqueue)
    say("Queued.")
    say_how_to_wait(joint.name)
    print_line(joint.name)


def submit_and_fetch_joint(fleet: Fleet, asked: Asked, output: Output, enqueue: Enqueue) -> None:
    """Queue a joint job for workers elsewhere, wait for it, and write its file."""
    output.check()
    joint = queue_all(fleet, asked, enqueue)
    watch_all(joint, output)
    write_joint_output(joint, output)


def queue_all(fleet: Fleet, asked: Asked, enqueue: Enqueue) -> JointJob:
    """Queue the jobs of all models; if one cannot be, none goes on."""
    jobs: list[Job] = []
    try:
        for request in asked.requests:
            jobs += [enqueue(fleet, request)]
    except UserError:
        for job in jobs:
            with suppress(JobEndedError):  # it was submitted before, and is finished
                job.cancel()
        raise
    return joint_of(fleet, jobs, asked)


def joint_of(fleet: Fleet, jobs: Sequence[Job], asked: Asked) -> JointJob:
    """Return the joint job of queued jobs."""
    report = None if asked.frames is None else asked.frames.report
    return JointJob.of(fleet, jobs, source=asked.source.shown, frames=report)


def watch_all(joint: JointJob, output: Output | None = None) -> None:
    """Wait for the jobs of all models; exit with code 1 if batches failed, 130 on Ctrl-C.

    Args:
        output: the file that they are waited for, if there is one.
    """
    for job in joint.jobs:
        watch_job(job, output, name=joint.name)


def write_joint_output(joint: JointJob, output: Output) -> None:
    """Write the file of a joint job whose batches are all done, and print what it contains."""
    with console.status(f"Writing {output.place} …"):
        fetched = joint.fetch_to(output)
    for job, one in zip(joint.jobs, fetched, strict=True):
        say(f"{job.manifest.model}:")
        report_fetched(one, f"The reasons are in the quarantine of {job.name}")


def fetch_joint(
    joint: JointJob, place: Place, wanted: Wanted, *, overwrite: bool, follow: bool
) -> None:
    """Write the file of a joint job.

    Args:
        follow: whether to wait for it.

    Raises:
        NotReadyError: batches are missing, and it is not waited for.
    """
    if wanted.partial:
        raise UserError(
            f"--partial: {joint.name} has several models. Name the job of one of them: "
            + ", ".join(job.name for job in joint.jobs)
        )
    output = joint.output_file(place, overwrite=overwrite, wanted=wanted)
    if follow:
        joint.fleet.connect()
        watch_all(joint, output)
    write_joint_output(joint, output)
