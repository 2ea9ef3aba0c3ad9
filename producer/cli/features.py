"""The features of frames, computed on a fleet or on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from common.store import open_store
from producer.cli.joint import joint_output_of, queue_all, watch_all
from producer.cli.joint_local import local_fleet_for, run_in_turn
from producer.cli.options import named_fleet
from producer.cli.reading import Reading
from producer.cli.submit import enqueue
from producer.cli.translating import Asked, requests_of_frames
from producer.fleet.fleet import Fleet
from producer.fleet.joint import JointJob
from producer.input.sources import AnySource
from producer.output.wanted import Wanted
from producer.submission.frames import Frames


class Machine(NamedTuple):
    """Where models run."""

    local: bool
    gpus: str
    store: str | None
    broker: str | None


@contextmanager
def computed(
    reading: Reading, frames: Frames, source: AnySource, place: Path, machine: Machine
) -> Iterator[tuple[Fleet | None, JointJob | None]]:
    """Have frames embedded; yield the fleet and the job, or None if there is no frame.

    Args:
        source: that the frames are of.
        place: a file name, ``.h5``, beside which a run on this machine keeps what is computed.
    """
    if not frames.report.frames:
        yield None, None
        return
    asked = Asked(requests_of_frames(reading, frames), frames, source, reading.precision)
    if machine.local:
        kept = None if machine.store is None else open_store(machine.store)
        file = joint_output_of(asked, place, False, Wanted(), kept)
        with local_fleet_for(asked, file, gpus=machine.gpus, store=machine.store) as fleet:
            yield fleet, computed_on(fleet, asked, reading)
        return
    fleet = named_fleet(broker=machine.broker, store=machine.store)
    yield fleet, computed_on(fleet, asked, reading)


def computed_on(fleet: Fleet, asked: Asked, reading: Reading) -> JointJob:
    """Return the joint job of frames, once a fleet has computed it."""
    start = partial(enqueue, batch_tokens=reading.batch_tokens)
    if fleet.is_local:
        return run_in_turn(fleet, asked, start)
    joint = queue_all(fleet, asked, start)
    watch_all(joint)
    return joint
