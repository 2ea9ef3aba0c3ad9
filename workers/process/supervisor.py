"""The supervisor: starts one worker process per GPU and restarts those that end."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from common.local.processes import start_dependent, wait_or_kill
from workers.process.device_losses import LOSS_SECONDS, MAX_LOSSES, DeviceLosses
from workers.process.exit_codes import (
    EXIT_DEVICE_LOST,
    EXIT_NEVER_READY,
    EXIT_USER_ERROR,
)
from workers.process.health import Health, Verdict
from workers.process.liveness import CHECK_SECONDS
from workers.process.metrics import WorkerMetrics
from workers.process.shared_folder import SharedFolder
from workers.process.slot import MAX_ENDS, Slot, make_slots

log = logging.getLogger(__name__)

#: Command line of a worker process, without its arguments.
COMMAND = [sys.executable, "-P", "-m", "workers.process"]

#: Seconds between a process's request to end and its kill: it requeues its batches meanwhile.
GRACE_SECONDS = 30.0


def supervise(
    arguments: Sequence[str],
    gpus: Sequence[str],
    environment: Mapping[str, str],
    health: Health | None = None,
    *,
    metrics: str | None = None,
    gpus_required: bool = False,
    max_device_losses: int = MAX_LOSSES,
) -> int:
    """Keep one process per GPU, or one on the CPU, until SIGTERM or SIGINT.

    Args:
        arguments: of ``python -m workers.process``.
        gpus: the ``CUDA_VISIBLE_DEVICES`` of each process; empty: one process on the CPU.
        environment: of the processes.
        health: shows how the processes are.
        metrics: address at which the metrics and the health are served; None or empty: none.
        gpus_required: whether a GPU that PyTorch cannot use ends the supervisor.
        max_device_losses: losses of devices within ``LOSS_SECONDS`` that end the supervisor.

    Returns:
        The exit code: 0 after a signal, else one of ``workers.process.exit_codes``.

    Raises:
        UserError: the address of the metrics is invalid or in use.
    """
    folder = SharedFolder()
    slots = make_slots(gpus, folder.path)
    health = Health() if health is None else health
    losses = DeviceLosses(max_device_losses)
    signals = received_signals(health)
    code = 0
    try:
        if metrics:
            WorkerMetrics(folder.metrics, arguments[0], slots, health).serve(metrics)
        while not signals and code == 0:
            folder.keep()
            code = tend_all(slots, arguments, environment, losses, gpus_required=gpus_required)
            show(slots, health)
            time.sleep(CHECK_SECONDS)
    finally:
        health.end()
        end_all(slots)
        folder.remove()
    return code


def received_signals(health: Health) -> list[int]:
    """Return a list to which every SIGTERM and SIGINT from now on is added."""
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        received.append(number)
        health.end()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, receive)
    return received


def show(slots: Sequence[Slot], health: Health) -> None:
    """Show how the processes are: one that is not alive, or not ready, stands for all."""
    health.update(together([slot.alive for slot in slots]), together([s.ready for s in slots]))


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Return whether something holds for all, with the reasons of those for which it does not."""
    exceptions = [verdict.reason for verdict in verdicts if not verdict.holds]
    reasons = exceptions or [verdict.reason for verdict in verdicts]
    return Verdict(not exceptions, "; ".join(reasons))


def tend_all(
    slots: Sequence[Slot],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    losses: DeviceLosses,
    *,
    gpus_required: bool = False,
) -> int:
    """Tend every slot; return 0, or the exit code with which the supervisor should end."""
    now = time.monotonic()
    codes = []
    for slot in slots:
        code = tend(slot, arguments, environment, now, gpus_required=gpus_required)
        if code == EXIT_DEVICE_LOST:
            losses.add(now)
        else:
            codes.append(code)
    if losses.are_too_many(now):
        log.critical(
            "Devices were lost %d times within %g minutes: this worker ends with exit code %d, so "
            "that its pod or unit is replaced. Look at the GPUs of this host (nvidia-smi, dmesg).",
            *(losses.most, LOSS_SECONDS / 60, EXIT_DEVICE_LOST),
        )
        return EXIT_DEVICE_LOST
    # One bad GPU, or a broker that is away for a while, is no reason to stop the others.
    if any(slot.was_ready for slot in slots):
        return 0
    return next((code for code in codes if code != 0), 0)


def tend(
    slot: Slot,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    now: float,
    *,
    gpus_required: bool = False,
) -> int:
    """Start the slot's process if one is due; kill it if it hangs; see whether it ended.

    Returns:
        0; the exit code with which the supervisor should end; or ``EXIT_DEVICE_LOST``, which is
        counted first.
    """
    slot.check()
    if slot.process is None:
        if now >= slot.start_at:
            start(slot, arguments, environment)
        return 0
    code = slot.process.poll()
    if code is None:
        kill_if_hung(slot, slot.process)
        return 0
    return plan_restart(slot, code, now, gpus_required=gpus_required)


def start(slot: Slot, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start the slot's process."""
    slot.liveness.reset()
    slot.ready_file.unlink(missing_ok=True)
    process = start_dependent([*COMMAND, *arguments], env=slot.environment(environment))
    slot.note_start(process)


def kill_if_hung(slot: Slot, process: "subprocess.Popen[bytes]") -> None:
    """Kill the slot's process if it is frozen, or says for long that it is not alive."""
    if slot.killed or not (slot.liveness.is_frozen or slot.liveness.is_deaf):
        return
    if slot.liveness.is_frozen:
        log.error("The worker on %s is frozen (no heartbeat): it is killed.", slot.where)
    else:
        problem = slot.liveness.problem
        log.error("The worker on %s is not alive (%s): it is killed.", slot.where, problem)
        slot.trial = "was replaced, as it took no batches"
    process.kill()
    slot.killed = True


def plan_restart(slot: Slot, code: int, now: float, *, gpus_required: bool = False) -> int:
    """Set the time of the next start after a process ended with ``code``.

    Returns:
        ``EXIT_NEVER_READY`` if too many ended before one was ready; ``EXIT_USER_ERROR`` and
        ``EXIT_DEVICE_LOST`` if that is what the end means; else 0.
    """
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    verdict = slot.note_end(code, now, gpus_required=gpus_required)
    # An error that only the user can correct ends the supervisor, unless other workers are ready.
    restart = "" if verdict == EXIT_USER_ERROR else f"; it is restarted in {slot.pause:g} s"
    if verdict not in (EXIT_USER_ERROR, EXIT_DEVICE_LOST):
        verdict = 0
    if verdict == 0 and not slot.was_ready and slot.early_ends >= MAX_ENDS:
        log.error(
            "The worker on %s ended %d times before it was ready (%s).",
            *(slot.where, slot.early_ends, how),
        )
        verdict = EXIT_NEVER_READY
    log.error("The worker on %s ended (%s)%s.", slot.where, how, restart)
    return verdict


def end_all(slots: Sequence[Slot]) -> None:
    """Ask all processes to end; kill those that have not after ``GRACE_SECONDS``."""
    running = [slot.process for slot in slots if slot.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        wait_or_kill(process, max(0.0, deadline - time.monotonic()))
