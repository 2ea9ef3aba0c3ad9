"""Jobs with identical records, staged without a reader, and their batches with all rows."""

from collections.abc import Iterable, Sequence

from common.crc import crc32
from common.job.copy_lines import Copy, encode_copies
from common.job.inputs import read_input
from common.job.manifest import Manifest, checksums_text, write_manifest
from common.job.output_form import OutputForm
from common.job.records import Record, encode_batch
from common.rungs import Rung
from common.store import Store
from tests.support.jobs import manifest_of
from tests.support.shards import same_for_same, store_shard


def split(batches: Iterable[Sequence[Record]]) -> list[tuple[list[Record], list[Copy]]]:
    """Return the records of each batch that are computed, the first among them, and its copies."""
    originals: dict[str, int] = {}
    found = []
    for batch in batches:
        computed: list[Record] = []
        copies: list[Copy] = []
        for record in batch:
            row, header, residues = record
            if computed and residues in originals:
                copies.append(Copy(row, originals[residues], len(residues), header))
            else:
                originals.setdefault(residues, row)
                computed.append(record)
        found.append((computed, copies))
    return found


def store_job(
    store: Store,
    batches: Sequence[Sequence[Record]],
    form: OutputForm,
    *,
    dedup: bool = True,
    job: str = "job-0123456789ab",
    **report: int,
) -> Manifest:
    """Stage a job of these batches in a store."""
    parts = split(batches) if dedup else [(list(batch), []) for batch in batches]
    identical = sum(len(copies) for _, copies in parts)
    residues = sum(form.embedded(len(r.residues)) for batch in batches for r in batch)
    if form.contacts:
        report["pairs"] = sum(
            form.embedded(len(r.residues)) ** 2 for batch in batches for r in batch
        )
    manifest = manifest_of([len(c) for c, _ in parts], job=job, form=form, residues=residues)
    counts = {"records": manifest.report.records + identical, "identical": identical, **report}
    update: dict[str, object] = {"report": manifest.report.model_copy(update=counts)}
    inputs = [encode_batch(computed) for computed, _ in parts]
    for index, data in enumerate(inputs):
        store.put(manifest.input_key(index), data)
    update["input_crc32"] = checksums_text(map(crc32, inputs))
    if identical:
        objects = [encode_copies(copies) for _, copies in parts]
        for index, data in enumerate(objects):
            if data:
                store.put(manifest.copies_key(index), data)
        update |= {
            "batch_copies": [len(copies) for _, copies in parts],
            "copies_crc32": checksums_text(map(crc32, objects)),
            "batch_rows": [computed[0].row for computed, _ in parts],
        }
    manifest = Manifest.model_validate({**dict(manifest), **update})
    write_manifest(store, manifest)
    return manifest


def compute(
    store: Store, manifest: Manifest, index: int, *, never: Sequence[str] = (), ladder: bool = True
) -> None:
    """Write a batch's shards as workers do; records with the letters of ``never`` are in none.

    A record gets numbers that depend on its letters alone.

    Args:
        ladder: whether records with a W have them at another rung.
    """
    records = [r for r in read_input(store, manifest, index) if r.residues not in never]
    higher = [r.row for r in records if "W" in r.residues and ladder]
    lower = [r.row for r in records if r.row not in higher]
    store_shard(store, manifest, index, rows=lower, embed=same_for_same)
    if higher:
        store_shard(store, manifest, index, rung=Rung.FP32, rows=higher, embed=same_for_same)
