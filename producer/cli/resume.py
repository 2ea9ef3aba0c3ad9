"""``producer resume``."""

from collections.abc import Callable
from typing import Annotated

from common.errors import UserError
from common.job.joint import is_joint
from common.ledger.progress import OnInstability
from common.model_source import ModelSource
from common.text import counted_batches
from producer.cli.joint import watch_all, write_joint_output
from producer.cli.local import run_local
from producer.cli.options import (
    Broker,
    DtypeOption,
    Flag,
    JobName,
    LayoutOption,
    OutputPlace,
    StoreUrl,
    named_fleet,
)
from producer.cli.output import write_while_it_runs
from producer.cli.watch import say_how_to_wait
from producer.fleet.fleet import Fleet, precision_of
from producer.fleet.job import Job
from producer.fleet.joint import JointJob
from producer.fleet.output import Place, working_file
from producer.local.run import has_jobs, local_store
from producer.output.wanted import Wanted
from producer.terminal.console import say


def resume(
    job: JobName,
    /,
    *,
    output: OutputPlace | None = None,
    overwrite: Annotated[bool, Flag] = False,
    layout: LayoutOption = None,
    dtype: DtypeOption = None,
    local: Annotated[bool, Flag] = False,
    on_instability: OnInstability | None = None,
    damaged: Annotated[bool, Flag] = False,
    gpus: str = "all",
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Go on with a job that was cancelled, stopped, interrupted, or lost by Redis.

    Needs its name and its store, not its input. Batches that failed are retried too.

    Parameters
    ----------
    output
        Wait for the job and write its embeddings to this file, as of submit, or to this object,
        s3://bucket/key.h5.
    overwrite
        Replace any other file too.
    local
        Go on with a job of submit --local; -o is the file that it was to write.
    on_instability
        What to do with a sequence whose embedding is not finite; default: as before.
    damaged
        Also compute again what is in shards that cannot be used. All shards are read to find them.
    gpus
        GPUs to use with --local: all, none for the CPU, or numbers such as 0,1.
    """

    def start(fleet: Fleet, name: str = job) -> Job:
        resumed = fleet.job(name)
        left = resumed.resume(on_instability=on_instability)
        left = resumed.retry(damaged=True) if damaged else left
        say(f"{left:,} of {counted_batches(resumed.manifest.batches)} of job {name} left to do.")
        return resumed

    wanted = Wanted(layout=layout, dtype=dtype)
    if is_joint(job):
        if local:
            raise UserError(
                f"resume --local: {job} has several models. Give the command that submitted it "
                "again, which goes on with what is computed."
            )
        joint = JointJob(named_fleet(broker=broker, store=store), job)
        resume_joint(joint, start, output, wanted, overwrite=overwrite)
        return
    if local:
        if output is None:
            raise UserError("resume --local: name the file that the job was to write with -o.")
        opened = local_store(working_file(output), store)
        if store is None and not has_jobs(opened):
            raise UserError(f"{opened.url} has no job {job!r}: it is finished, or was not begun.")
        kept = Fleet(store=opened.url).job(job)
        run_local(
            start,
            kept.output_file(output, overwrite=overwrite, wanted=wanted),
            model=ModelSource.parse(kept.manifest.model),
            precision=precision_of(kept.manifest.rung),
            gpus=gpus,
            store=store,
        )
        return
    resumed = named_fleet(broker=broker, store=store).job(job)
    if output is None:
        start(resumed.fleet)
        say_how_to_wait(job)
        return
    file = resumed.output_file(output, overwrite=overwrite, wanted=wanted)
    file.check()
    start(resumed.fleet)
    write_while_it_runs(resumed, file)


def resume_joint(
    joint: JointJob,
    start: Callable[[Fleet, str], Job],
    place: Place | None,
    wanted: Wanted,
    *,
    overwrite: bool,
) -> None:
    """Go on with the jobs of all models; if there is a place for their file, wait for that."""
    output = joint.output_file(place, overwrite=overwrite, wanted=wanted) if place else None
    for job in joint.jobs:
        start(joint.fleet, job.name)
    if output is None:
        say_how_to_wait(joint.name)
        return
    watch_all(joint, output)
    write_joint_output(joint, output)
