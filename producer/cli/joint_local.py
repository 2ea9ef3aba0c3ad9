"""Joint jobs on this machine: one model after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

from common.store import Store
from producer.cli.joint import Enqueue, joint_of, write_joint_output
from producer.cli.local import fleet_of_this_machine
from producer.cli.translating import Asked
from producer.cli.watch import wait_for
from producer.fleet.fleet import Fleet
from producer.fleet.joint import JointJob
from producer.fleet.output import Output
from producer.local.run import check_weights
from producer.terminal.console import say


def run_in_turn(fleet: Fleet, asked: Asked, enqueue: Enqueue) -> JointJob:
    """Run the jobs of all models on this machine, one after the other; return their joint job.

    Each model has all memory of the GPUs: its workers end before those of the next one start.
    """
    jobs = []
    for request in asked.requests:
        fleet.start_worker(request.model.text, request.rung, asked.precision)
        job = enqueue(fleet, request)
        wait_for(job)
        fleet.stop_workers(request.model.text)
        jobs.append(job)
    return joint_of(fleet, jobs, asked)


@contextmanager
def local_fleet_for(
    asked: Asked, output: Output, *, gpus: str, store: str | None
) -> Iterator[Fleet]:
    """Run a fleet of this machine for a joint job, beside its file."""
    for request in asked.requests:
        check_weights(request.model)
    first = asked.requests[0]
    with fleet_of_this_machine(
        output,
        model=first.model,
        precision=asked.precision,
        gpus=gpus,
        store=store,
        stopped=say_stopped,
    ) as fleet:
        yield fleet


def run_joint_locally(
    asked: Asked, output: Output, enqueue: Enqueue, *, gpus: str, store: str | None
) -> None:
    """Run a joint job to its file on this machine."""
    with local_fleet_for(asked, output, gpus=gpus, store=store) as fleet:
        write_joint_output(run_in_turn(fleet, asked, enqueue), output)


def say_stopped(_kept: Store) -> None:
    say("Stopped. What is computed is kept: the same command goes on with it.")
