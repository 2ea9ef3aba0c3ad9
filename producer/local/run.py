"""A local run: a fleet for one job, in a folder that survives an interruption."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.advice import how_to
from common.errors import ProcessEndedError, UserError
from common.job.layout import manifest_key
from common.job.manifest import find_job
from common.job.shards import shards_of
from common.model_source import ModelSource
from common.rungs import PrecisionChoice
from common.store import Store, StoreError, open_store
from common.text import counted_batches
from producer.fleet.fleet import Fleet
from producer.fleet.output import Output
from producer.fleet.output_file import Origin

LOCK = "lock"


def local_folder(output: Path) -> Path:
    """Return the folder of a local job until its result is fetched."""
    return output.with_name(output.name + ".parts")


def local_store(output: Path, store_url: str | None) -> Store:
    """Return the store of a local job: the user's, or its own, which lasts as long as the job."""
    return open_store(store_url or str((local_folder(output) / "store").absolute()))


@contextmanager
def local_run(
    output: Output,
    *,
    model: ModelSource,
    precision: PrecisionChoice,
    gpus: str,
    store_url: str | None,
) -> Iterator[Fleet]:
    """Run a fleet for one job. Whatever ends it, a job in its store can be resumed.

    Raises:
        UserError: another run has the same output, now or before an interruption; weights are
            missing, or a package is.
    """
    check_weights(model)
    folder, store = local_folder(output.working), local_store(output.working, store_url)
    own_store = store_url is None
    with only_run_in(folder):
        if own_store:
            store.check_writable()
            check_kept(output, store)
        try:
            with Fleet.local(
                folder=folder, store=store.url, model=model.text, precision=precision, gpus=gpus
            ) as fleet:
                yield fleet
        except BaseException as error:
            # A process that ended may have been at fault from its start, as with bad weights: then
            # there is nothing to keep, and the same command begins anew.
            ended = isinstance(error, ProcessEndedError)
            if not own_store or not (has_shards(store) if ended else has_jobs(store)):
                tidy(folder, own_store=own_store)
            raise
        tidy(folder, own_store=own_store)


def has_jobs(store: Store) -> bool:
    """Return whether a job is in the store, which is removed with its last one."""
    try:
        return any(key == manifest_key(key.partition("/")[0]) for key in store.keys(""))
    except StoreError:
        return False


def has_shards(store: Store) -> bool:
    return any(key.endswith(".h5") for key in store.keys(""))


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it is freed at the latest when this process ends.

    Raises:
        UserError: another run holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The working folder {folder} cannot be created: {error}.", path=folder
        ) from error
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"Another run works in {folder}: wait for it, or name another output with -o.",
                path=folder,
            ) from error
        yield


def check_kept(output: Output, store: Store) -> None:
    """Check that finished batches of an interrupted run are this job's: the end removes them all.

    Raises:
        UserError: they are of another job.
    """
    for job in () if output.overwrite else store.folders():
        manifest = find_job(store, job)
        # Without the input's fingerprint: another job of the same input is another job.
        if manifest is None or output.is_ours(Origin(job, "", manifest.model_digest or "")):
            continue
        if done := len(shards_of(store, manifest)):
            raise UserError(
                f"{local_folder(output.working)} has {counted_batches(done)} of an interrupted run "
                f"of {manifest.input} (job {job}). Name another output file (-o), discard them "
                f"with --overwrite, or resume that job first: {how_to('resume', job)}",
                path=local_folder(output.working),
            )


def check_weights(model: ModelSource) -> None:
    """Check that a model's path exists. In a larger fleet, only the workers can tell.

    Raises:
        UserError: there is no such folder or file, or no such model in a bucket.
    """
    if model.is_stored:
        from common.model_bucket import look

        look(model.text)
    if model.is_path and not model.files():
        raise UserError(f"--model {model.text}: no such folder or file with weights.")


def tidy(folder: Path, *, own_store: bool) -> None:
    """Remove a local job's files, and the folder if it is then empty."""
    if own_store:  # with another, an earlier run's batches may still be in this one
        shutil.rmtree(folder / "store", ignore_errors=True)
    for name in ("worker.log", LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
