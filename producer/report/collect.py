"""A report of a job or of a file: what is known of it, and the map of its vectors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import __version__
from common.embeddings.file import EmbeddingFile
from common.embeddings.origins import Origins
from common.job.manifest import Manifest
from common.job.output_form import POOLED, OutputForm
from common.job.shards import shards_of
from common.ledger.ledger import Ledger
from common.store import Store
from common.text import counted, counted_batches, duration
from producer.output.file_rows import FileRows
from producer.output.job_shards import attributes_of_file
from producer.report.contents import Points, Report
from producer.report.job_rows import rows_of_job
from producer.report.metadata import read_colours
from producer.report.projection import has_umap, projections
from producer.report.rows import (
    MOST_POINTS,
    Collected,
    collect,
    histogram_of,
    own_colours,
    precision_counts,
)
from producer.report.run import Told, ask_ledger, read_labels, run_of, time_text
from producer.scheduling.retry import quarantined_rows


@dataclass(frozen=True)
class Asked:
    """What a user asks of a report."""

    csv: Path | None = None  # a table with columns to colour points by
    colours: tuple[str, ...] = ()  # columns of it; empty: all
    umap: bool = True  # where it is installed


def report_of_file(file: EmbeddingFile, asked: Asked) -> Report:
    """Return a report of a file of embeddings.

    Raises:
        UserError: the file or the table cannot be read.
    """
    rows = FileRows(file)
    pooled = shown_vectors(rows.form)
    form = only(rows.form, pooled)
    found = collect((rows.block(k, form)[0] for k in range(rows.blocks)), rows.records, pooled)
    attributes = file.attributes
    facts = [
        ("job", str(attributes.get("job", ""))),
        ("model", name_of(str(attributes.get("model", "")))),
        ("input", name_of(str(attributes.get("input", "")))),
        ("package", str(attributes.get("version", ""))),
    ]
    return Report(
        subject=Path(file.path).name,
        job=str(attributes.get("job", "")),
        facts=tuple((name, text) for name, text in facts if text),
        cards=tuple(cards_of_rows(found, found.count, attributes)),
        warnings=tuple(warnings_of(attributes)),
        notes=tuple(changes_of(attributes)),
        letters="letters",
        lengths=histogram_of(found.lengths),
        precisions=precision_counts(found),
        points=points_of(found, file.origins, asked),
        map_notes=tuple(map_notes(found, pooled, form)),
        version=__version__,
    )


def report_of_job(
    store: Store, manifest: Manifest, connected: Callable[[], Ledger], asked: Asked
) -> Report:
    """Return a report of a job; of one that is not finished, of the batches that are done.

    Args:
        connected: returns the ledger, or raises UserError: a report does without it.

    Raises:
        UserError: a shard or the table cannot be read.
    """
    shards = shards_of(store, manifest)
    keys = {batch: [key for _, key in found] for batch, found in sorted(shards.items())}
    pooled, report = shown_vectors(manifest.form), manifest.report
    records = sum(manifest.rows_of(batch) for batch in keys)
    attributes = attributes_of_file(store, manifest, keys) if keys else report.attributes()
    found = collect(rows_of_job(store, manifest, keys, attributes), records, pooled)
    told = ask_ledger(connected, manifest.job)
    quarantined = quarantined_rows(store, manifest)
    labels = read_labels(store, [key for of_batch in keys.values() for key in of_batch])
    cards = cards_of_rows(found, report.records, report.attributes())
    cards += [(f"{manifest.tokens:,}", "tokens"), *cards_of_run(manifest, len(keys), told)]
    return Report(
        subject=manifest.job,
        job=manifest.job,
        facts=tuple(facts_of_job(manifest, told)),
        cards=tuple(cards),
        warnings=(*unfinished(manifest, len(keys), found), *warnings_of(attributes)),
        notes=tuple(changes_of(attributes)),
        letters="bases" if manifest.alphabet == "dna" else "residues",
        lengths=histogram_of(found.lengths),
        precisions=precision_counts(found),
        points=points_of(found, manifest.origins, asked),
        map_notes=tuple(map_notes(found, pooled, manifest.form)),
        run=run_of(manifest, labels, quarantined, told),
        version=__version__,
    )


def shown_vectors(form: OutputForm) -> str | None:
    """Return the name of the vectors that the map shows; None if there are none of sequences."""
    return next((name for name in POOLED if name in form.include), None)


def only(form: OutputForm, pooled: str | None) -> OutputForm:
    """Return a form with these vectors alone, or none."""
    return form.model_copy(update={"include": () if pooled is None else (pooled,)})


def points_of(found: Collected, origins: Origins | None, asked: Asked) -> Points | None:
    """Return the map; None if there is no vector."""
    if found.vectors is None or found.vectors.count == 0:
        return None
    colours = own_colours(found, origins)
    own = len(colours)
    if asked.csv is not None:
        colours += read_colours(asked.csv, asked.colours, found.ids)
    return Points(
        ids=found.ids,
        headers=found.headers,
        lengths=colours[0].values.astype("int32"),
        projections=projections(found.vectors, with_umap=asked.umap and has_umap()),
        colours=tuple(colours),
        shown=own if len(colours) > own else 0,
    )


def map_notes(found: Collected, pooled: str | None, form: OutputForm) -> Iterator[str]:
    """Yield what must be said of the map."""
    if pooled is None:
        yield "There is no map: it needs one vector per sequence, and only others were computed."
        return
    if found.vectors is None or not found.count:
        return
    layer = "" if len(form.layers) == 1 else f" of layer {form.layers[-1]}"
    yield f"Each point is a sequence, placed by its {pooled} vector{layer}."
    if found.count > MOST_POINTS:
        yield (
            f"The map shows a random sample of {found.vectors.count:,} of "
            f"{counted(found.count, 'sequence')}; all other figures are of all."
        )
    if found.without_numbers:
        yield f"Left out: {counted(found.without_numbers, 'sequence')} without an embedding."


def cards_of_rows(
    found: Collected, records: int, attributes: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return what is counted of rows.

    Args:
        attributes: of the input; see ``InputReport.attributes``.
    """
    cards = [(f"{records:,}", "sequences")]
    for name, what in (
        ("records_identical", "identical, not computed again"),
        ("records_reused", "taken over from earlier jobs"),
    ):
        if count := int(attributes.get(name, 0)):
            cards.append((f"{count / records:.1%}", f"{count:,} {what}"))
    if found.without_numbers:
        cards.append((f"{found.without_numbers:,}", "without an embedding"))
    return cards


def cards_of_run(manifest: Manifest, done: int, told: Told) -> Iterator[tuple[str, str]]:
    """Yield what is counted of batches and time."""
    batches = f"{manifest.batches:,}"
    yield (batches if done == manifest.batches else f"{done:,} of {batches}"), "batches done"
    progress = told.progress
    if progress is None:
        return
    if progress.tokens_per_second:
        yield f"{progress.tokens_per_second:,.0f}", "tokens per second"
    if progress.elapsed is not None:
        yield duration(progress.elapsed), "from submission to end" if progress.ended else "so far"
    if progress.device_seconds:
        yield duration(progress.device_seconds), "of forward passes"


def facts_of_job(manifest: Manifest, told: Told) -> Iterator[tuple[str, str]]:
    if told.progress is not None:
        yield "state", told.progress.status
    yield "model", name_of(manifest.model)
    names = [name_of(source) for source in manifest.inputs]
    yield "input", ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    yield "submitted", time_text(manifest.created.timestamp())
    yield "package", manifest.package


def unfinished(manifest: Manifest, done: int, found: Collected) -> Iterator[str]:
    """Yield what must be said of a job of which batches are not done."""
    if found.count < manifest.report.records:
        yield (
            f"Not all is embedded: the figures are of {found.count:,} of "
            f"{counted(manifest.report.records, 'sequence')}, in {done:,} of "
            f"{counted_batches(manifest.batches)}."
        )


#: What the counts of an input's records mean.
CHANGES = {
    "records_long": "longer than the model's limit, truncated or in windows",
    "records_skipped": "skipped for a letter that is not in the alphabet",
    "records_empty": "skipped as they are empty",
    "records_replaced": "with an unknown letter that was replaced",
    "records_gapped": "with gaps that were kept",
    "records_stripped": "with gaps that were removed",
    "records_rna": "of RNA read as DNA",
    "records_like_dna": "look like DNA",
}


def changes_of(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was changed of the input, or looks wrong in it."""
    for name, what in CHANGES.items():
        if count := int(attributes.get(name, 0)):
            yield f"{counted(count, 'sequence')} {what}."


def warnings_of(attributes: Mapping[str, Any]) -> Iterator[str]:
    if warning := attributes.get("warning"):
        yield f"Warning: {warning}."


def name_of(source: str) -> str:
    """Return the name of a source without its folder, which is of one machine."""
    return source.rstrip("/").rpartition("/")[2]
