"""The input of a batch: its records, the rows to retry, and whether the model can take them."""

from collections.abc import Collection, Iterable, Mapping

from common.errors import UserError
from common.job.inputs import read_input
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.records import Record
from common.ledger.ledger import Ledger
from common.model_specs import ModelSpec
from common.store import Store
from common.wire.messages import Batch, Instability
from workers.engine.prepared import tokens_in_all
from workers.models.loading import LoadedModel


def check_alphabet(manifest: Manifest, loaded: LoadedModel) -> None:
    """Raise UserError if a job's input has another alphabet than the model."""
    family = loaded.spec.family
    if manifest.alphabet != family.alphabet.name:
        raise UserError(
            f"The input was read as {manifest.alphabet}, but {manifest.model} is {family.name} and "
            f"takes {family.alphabet.name}. Submit from a machine that sees the model's folder, or "
            "by the model's name."
        )


def rows_to_retry(ledger: Ledger, batch: Batch) -> Mapping[int, Instability] | None:
    """Return what lower rungs saw of the rows that a batch retries, by row.

    At the first rung there are none. Return None if the ledger has no rows to retry.
    """
    if batch.previous_rung is None:
        return {}
    result = ledger.results.get(batch.job, batch.index, batch.previous_rung)
    if result is None or result.next is not batch.rung:
        return None
    return {bad.row: bad for bad in result.unstable}


def fetch_records(
    store: Store, manifest: Manifest, batch: Batch, retried: Collection[int]
) -> list[Record]:
    """Return the records of a batch; of one above the first rung, those of the ``retried`` rows.

    Raises:
        StoreError: the store did not give the input object.
        UserError: the object is damaged.
        ValueError: the object has other records than the message says.
    """
    records = read_input(store, manifest, batch.index)
    expected = batch.records
    if batch.previous_rung is not None:
        records = [record for record in records if record.row in retried]
        expected = len(retried)
    if len(records) != expected:
        raise ValueError(f"batch {batch.index} has {len(records)} of {expected} records")
    return records


def tokens_of(records: Iterable[Record], form: OutputForm, spec: ModelSpec) -> int:
    """Return the tokens of records, as their job counts them."""
    return tokens_in_all([len(record.residues) for record in records], form, spec)
