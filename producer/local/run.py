"""``producer submit --local``: submit, wait and fetch with a fleet that lives as long as that."""

import fcntl
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError
from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.local.fleet import LocalFleet, local_fleet
from common.local.gpus import visible_gpus
from common.model_specs import ModelSource
from common.rungs import PrecisionChoice
from common.settings import Settings
from common.store import Store, open_store
from common.wire.redis_client import connect
from producer.scheduling.keeper import Keeper
from producer.scheduling.publisher import publisher_of
from producer.submission.request import Request
from producer.submission.submit import Hardware, submit
from producer.terminal.console import console, say
from producer.terminal.report import EXIT_INTERRUPTED, check_output, report_failures, write_output
from producer.terminal.watch import say_event, wait

LOCK = "lock"


def local_folder(output: Path) -> Path:
    """Where a local job lives until its result is fetched."""
    return output.with_name(output.name + ".parts")


def run_local(
    request: Request,
    output: Path,
    precision: PrecisionChoice,
    gpus: str,
    *,
    store_url: str | None,
    tokens: int | None,
) -> None:
    """Run a job to its output file; what a stop leaves half done, the next run completes.

    Exits with code 130 on Ctrl-C and SIGTERM, 1 if batches failed.

    Raises:
        UserError: what the user can mend, from the input to the weights.
    """
    # A scheduler's stop is as good as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    check_weights(request.model)
    check_output(output)
    folder = local_folder(output)
    store = open_store(store_url or str((folder / "store").absolute()))
    with alone_in(folder):
        try:
            with local_fleet(
                folder, store.url, model=request.model.text, precision=precision, gpus=gpus
            ) as fleet:
                manifest = run_job(request, store, fleet, hardware_here(gpus), tokens)
                write_output(store, manifest, output)
        except KeyboardInterrupt:
            if request.source.is_stream:
                tidy(folder)
                say("Stopped. What came through a pipe cannot be read again: begin anew.")
            else:
                kept = what_is_kept(store, own=not store_url)
                say(f"Stopped. Run the same command again to go on{kept}.")
            sys.exit(EXIT_INTERRUPTED)
        except UserError:
            if store_url is not None or not shards(store):
                tidy(folder)
            raise
        tidy(folder)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with this process, however it ends.

    Raises:
        UserError: another run holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}, where this run would work, cannot be made: {error}.") from error
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"Another run works in {folder}: wait for it, or name another output with -o."
            ) from error
        yield


def run_job(
    request: Request,
    store: Store,
    fleet: LocalFleet,
    hardware: Hardware,
    tokens: int | None,
) -> Manifest:
    say(f"Loading the model; the worker's log is {fleet.log}.")
    ledger = Ledger(connect(fleet.broker_url))
    feeder = publisher_of(Settings.read(broker=fleet.broker_url), ledger)
    manifest = submit(request, store, ledger, feeder, hardware=hardware, tokens=tokens)
    keeper = Keeper(store, ledger, feeder, on_event=say_event, only=manifest.job)
    wait(ledger, manifest.job, console, keep=keeper.step, check=fleet.check)
    report_failures(ledger, manifest)
    return manifest


def check_weights(model: ModelSource) -> None:
    """Say at once that a path is wrong; in a fleet, only the workers can know."""
    if model.is_path and not Path(model.text).exists():
        raise UserError(f"--model {model.text}: no such folder or file with weights.")


def hardware_here(gpus: str) -> Hardware:
    found = visible_gpus()
    used = {"none": [], "all": found}.get(gpus, gpus.split(","))
    return Hardware(on_gpu=bool(used), workers=max(1, len(used)))


def what_is_kept(store: Store, *, own: bool) -> str:
    if not own:
        return f": finished batches are kept in {store.url}"
    done = shards(store)
    return f": {done:,} finished batches are kept" if done else ""


def shards(store: Store) -> int:
    return sum(key.endswith(".h5") for key in store.keys(""))


def tidy(folder: Path) -> None:
    """Remove what a local job left, and the folder if nothing else is in it."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    for name in ("worker.log", LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
