"""The names of the queues, and what waits in them."""

from kombu import Queue

from common.model_specs import ModelSource
from common.rungs import Rung
from common.wire.messages import Batch, Priority

#: Before every key of the fleet, so that it can share a Redis while it is being tried.
KEY_PREFIX = "virnucpro:"


def queue_name(
    model: ModelSource, first: Rung, rung: Rung, priority: Priority = Priority.NORMAL
) -> str:
    """The queue of a model's batches at a rung of the ladder that begins at ``first``.

    Such as ``esm2_t33_650M_UR50D.fp16``, and ``esm2_t33_650M_UR50D.fp16.fp32`` for retries; with
    ``high.`` or ``low.`` before it unless the priority is normal.
    """
    before = "" if priority is Priority.NORMAL else f"{priority}."
    return f"{before}{model.queue}.{first}" + ("" if rung is first else f".{rung}")


def queue_of_batch(batch: Batch) -> str:
    """The queue that a batch is sent to."""
    return queue_name(ModelSource.parse(batch.model), batch.first_rung, batch.rung, batch.priority)


def queue_of(name: str) -> Queue:
    """The queue as Celery wants it described, the same to publish and to consume."""
    return Queue(name, routing_key=name)
