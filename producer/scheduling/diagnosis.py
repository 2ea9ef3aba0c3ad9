"""Why a job does not go on, and what to do: one text from an observation."""

from collections.abc import Sequence

from common.advice import how_to, how_to_start_worker
from common.ledger.progress import OPEN_STATES, Progress
from common.ledger.workers import WorkerInfo
from producer.scheduling.observation import Observation

NO_MEMORY = (
    "Redis has no memory left (its maxmemory): give it more, or wait until workers have taken "
    "messages"
)


def diagnose(seen: Observation) -> str:
    """Return why a job does not go on; an empty text if it does, or if it has ended."""
    progress = seen.progress
    if progress is None or progress.state not in OPEN_STATES:
        return ""
    if seen.store_error:
        return (
            f"a worker cannot use its store ({seen.store_error}). Workers need the store that the "
            "job was submitted to, and must be able to write there."
        )
    if seen.requeued:
        return f"a worker requeued a batch ({seen.requeued}). It is tried again."
    if progress.leased:
        return ""
    if not seen.has_memory:
        return f"{NO_MEMORY}."
    if not seen.workers:
        return without_worker(progress, seen)
    if have_other_weights(progress, seen.workers):
        return other_weights(progress)
    if are_refused(progress, seen.workers):
        return refused(progress)
    if not seen.is_queued and not seen.is_kept:
        return (
            "no message of it is queued, and no keeper runs that would publish them. Start one "
            f"(producer keeper), or wait for the job: {how_to('watch', progress.job)}"
        )
    return ""


def without_worker(progress: Progress, seen: Observation) -> str:
    others = sorted({worker.precision for worker in seen.other_workers})
    but = f" (workers of its model run in {', '.join(others)})" if others else ""
    text = f"no worker serves {progress.queue} yet{but}."
    if seen.is_local:
        return text
    return f"{text} Start one: {how_to_start_worker(progress.model, progress.first_rung)}"


def have_other_weights(progress: Progress, workers: Sequence[WorkerInfo]) -> bool:
    """Return whether all workers have other weights than the job, so that none can continue it."""
    loaded = [worker for worker in workers if worker.weights is not None]
    fit = any(worker.fits(progress.weights, progress.model_digest) for worker in loaded)
    return bool(loaded) and not fit


def other_weights(progress: Progress) -> str:
    if progress.weights is None:
        return (
            f"its workers have loaded other weights than {progress.model} has now, and will not "
            "compute it: restart them."
        )
    return (
        f"it began with weights {progress.weights}, but its workers have others and will not "
        "continue it. Start workers with those weights, or submit the input as a new job (--new)."
    )


def are_refused(progress: Progress, workers: Sequence[WorkerInfo]) -> bool:
    """Return whether all workers refuse the messages that were published last."""
    signed_with = progress.signed_with
    return signed_with is not None and not any(worker.accepts(signed_with) for worker in workers)


def refused(progress: Progress) -> str:
    how = "are signed with another one" if progress.signed_with else "are not signed"
    return (
        f"its messages are refused: the workers of {progress.queue} have a VIRNUCPRO_MESSAGE_KEY, "
        f"and they {how}. Set the same key for workers, producers and keepers, then "
        f"{how_to('resume', progress.job)}"
    )
