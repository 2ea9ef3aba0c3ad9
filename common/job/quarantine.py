"""The rows of a batch that have no embedding, beside its shards in the store."""

from common.errors import UserError
from common.job import sealed
from common.job.layout import output_prefix, quarantine_key
from common.store import ObjectNotFoundError, Store
from common.wire.messages import Instability, Message


class Quarantine(Message):
    """The rows of a batch that no rung could embed, with what each rung saw."""

    job: str
    batch: int
    rows: tuple[Instability, ...]


def add_to_quarantine(store: Store, quarantine: Quarantine) -> None:
    """Add rows to those of the same batch that are already in quarantine."""
    earlier = {row.row: row for row in read_quarantine(store, quarantine.job, quarantine.batch)}
    merged = earlier | {row.row: row for row in quarantine.rows}
    rows = tuple(merged[row] for row in sorted(merged))
    data = sealed.dump(quarantine.model_copy(update={"rows": rows}))
    store.put(quarantine_key(quarantine.job, quarantine.batch), data)


def read_quarantine(store: Store, job: str, batch: int) -> tuple[Instability, ...]:
    """Return the quarantined rows of a batch; most batches have none.

    Raises:
        UserError: the object in the store is damaged.
    """
    try:
        data = store.get(quarantine_key(job, batch))
    except ObjectNotFoundError:
        return ()
    try:
        return sealed.parse(Quarantine, data).rows
    except ValueError as error:
        shard = f"{store.url}/{output_prefix(job)}{batch:07d}.*"
        raise UserError(
            f"{store.url}/{quarantine_key(job, batch)} is damaged: delete it and the batch's last "
            f"shard, {shard}, and resume the job."
        ) from error
