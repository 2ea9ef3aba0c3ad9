"""The rows of a batch that no rung could embed, beside its shards in the store."""

from pydantic import ValidationError

from common.errors import UserError
from common.layout import output_prefix, quarantine_key
from common.messages import Instability, Message
from common.store import ObjectNotFoundError, Store


class Quarantine(Message):
    """What each rung saw of the rows of a batch that have no numbers."""

    job: str
    batch: int
    rows: tuple[Instability, ...]


def write_quarantine(store: Store, quarantine: Quarantine) -> None:
    key = quarantine_key(quarantine.job, quarantine.batch)
    store.put(key, quarantine.model_dump_json(indent=1).encode())


def read_quarantine(store: Store, job: str, batch: int) -> tuple[Instability, ...]:
    """The quarantined rows of a batch; most have none."""
    try:
        text = store.get(quarantine_key(job, batch))
    except ObjectNotFoundError:
        return ()
    try:
        return Quarantine.model_validate_json(text).rows
    except ValidationError as error:
        shard = f"{store.url}/{output_prefix(job)}{batch:07d}.*"
        raise UserError(
            f"{store.url}/{quarantine_key(job, batch)} is damaged: delete it and the batch's last "
            f"shard, {shard}, and submit the same input again."
        ) from error
