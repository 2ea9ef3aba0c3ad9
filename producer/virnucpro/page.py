"""The report of a prediction: one page of HTML, without scripts, that needs nothing else."""

import html
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from common.embeddings.arrays import Array
from common.text import counted
from producer.virnucpro.calls import CALLS, TIERS
from producer.virnucpro.folder import REPORT
from producer.virnucpro.prediction import Prediction
from producer.virnucpro.record import PredictionRecord

#: Bins of a histogram, and the size of its picture.
BINS, WIDTH, HEIGHT = 40, 560, 220

#: The space around a histogram for its axes: left, right, top, bottom.
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 38

#: Contigs in the table: those that are viral most clearly.
SHOWN = 200

#: What a report says first if the models' weights are random.
RANDOM = "The models have random weights: these calls mean nothing."


def write_page(folder: Path, record: PredictionRecord, prediction: Prediction) -> None:
    """Write the page into a folder."""
    (folder / REPORT).write_text(page_of(record, prediction), encoding="utf-8")


def page_of(record: PredictionRecord, prediction: Prediction) -> str:
    """Return the page. What a user named is in it as text: nothing of it is read as HTML."""
    place = files("producer.virnucpro") / "html"
    styles = files("producer.report") / "html" / "page.css"
    called = prediction.calls.chunks > 0
    parts = {
        "title": html.escape(f"Virus calls of {record.input}"),
        "style": styles.read_text("utf-8") + (place / "page.css").read_text("utf-8"),
        "facts": " ".join(f"<span>{fact}</span>" for fact in facts_of(record)),
        "notes": "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes_of(record)),
        "cards": "".join(
            f'<div class="card"><b>{count:,}</b><span>{html.escape(name)}</span></div>'
            for name, count in cards_of(record)
        ),
        "chunks": histogram(prediction.maxima[:, 1], (0, 1), "highest virus score of a chunk"),
        "deltas": histogram(
            prediction.calls.deltas[called], (-1, 1), "weighted difference of a contig's scores"
        ),
        "rows": "".join(rows_of(prediction)),
        "shown": shown_of(prediction),
    }
    return Template((place / "page.html").read_text("utf-8")).substitute(parts)


def facts_of(record: PredictionRecord) -> Iterator[str]:
    """Yield what the prediction was made with."""
    classifier, frames = record.classifier, record.frames
    yield f"classifier <b>{html.escape(classifier.file)}</b> ({classifier.fingerprint})"
    yield f"chunks of <b>{frames.chunk}</b> bases, genetic code <b>{frames.code}</b>"
    for model in record.models:
        yield f"<b>{html.escape(model.model)}</b> ({model.precision})"
    yield f"version <b>{record.version}</b>"


def notes_of(record: PredictionRecord) -> Iterator[str]:
    """Yield what a reader must know first."""
    if any(model.model.startswith("random:") for model in record.models):
        yield RANDOM
    frames = record.frames
    if frames.chunks_without_frame:
        yield (
            f"{counted(frames.chunks_without_frame, 'chunk')} of {frames.chunks:,} have no frame "
            f"without a stop, and no score; {counted(frames.contigs_without_frame, 'contig')} of "
            f"{frames.contigs:,} have none in any chunk, and no call."
        )
    if record.frames_without_score:
        yield (
            f"{counted(record.frames_without_score, 'frame')} have no score, as a model has no "
            "embedding of them."
        )
    if (found := record.compared) is not None:
        yield (
            f"In FP32, {found.frames_changed:,} of {counted(found.frames, 'frame')} and "
            f"{found.chunks_changed:,} of {counted(found.chunks, 'chunk')} of a sample change "
            f"their label."
        )


def cards_of(record: PredictionRecord) -> Iterator[tuple[str, int]]:
    """Yield numbers, and what they count."""
    yield "contigs", record.frames.contigs
    for call in CALLS:
        if call != "none" or record.calls[call]:
            yield "without a call" if call == "none" else call, sum(record.calls[call].values())
    yield "chunks", record.frames.chunks
    yield "frames", record.frames.frames


def rows_of(prediction: Prediction) -> Iterator[str]:
    """Yield the table's rows, those of the contigs that are viral most clearly first."""
    calls = prediction.calls
    order = np.argsort(-calls.deltas, kind="stable")
    for place in [place for place in order.tolist() if calls.chunks[place]][:SHOWN]:
        cells = (
            CALLS[calls.calls[place]],
            TIERS[calls.tiers[place]].replace("_", " "),
            f"{calls.deltas[place]:.3f}",
            f"{calls.chunks[place]:,}",
            f"{calls.confident[place, 1]:,}",
            f"{calls.confident[place, 0]:,}",
        )
        name = html.escape(prediction.names[place])
        yield f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def shown_of(prediction: Prediction) -> str:
    """Return a sentence about the rows of the table."""
    count = int((prediction.calls.chunks > 0).sum())
    if count <= SHOWN:
        return "All are in contigs.tsv, with those without a call."
    return f"The {SHOWN} with the highest difference of {count:,}; all are in contigs.tsv."


def histogram(values: Array, span: tuple[float, float], title: str) -> str:
    """Return a histogram as SVG."""
    counts, _ = np.histogram(np.clip(values, *span), BINS, span)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    most = max(1, int(counts.max(initial=0)))
    step = width / BINS
    bars = "".join(
        f'<rect x="{LEFT + place * step:.1f}" y="{TOP + height * (1 - count / most):.1f}" '
        f'width="{step - 1:.1f}" height="{height * count / most:.1f}">'
        f"<title>{count:,}</title></rect>"
        for place, count in enumerate(counts.tolist())
        if count
    )
    labels = "".join(ticks(span, width)) + (
        f'<text x="{LEFT - 6}" y="{TOP + 10}" text-anchor="end">{most:,}</text>'
        f'<text x="{LEFT - 6}" y="{TOP + height}" text-anchor="end">0</text>'
        f'<text x="{LEFT + width / 2}" y="{HEIGHT - 4}" text-anchor="middle">{title}</text>'
    )
    base = f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{TOP + height}" y2="{TOP + height}"/>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f"{base}{bars}{labels}</svg>"
    )


def ticks(span: tuple[float, float], width: float) -> Sequence[str]:
    """Return the numbers below an axis."""
    places = np.linspace(*span, 5)
    return [
        f'<text x="{LEFT + width * n / 4:.1f}" y="{HEIGHT - 22}" text-anchor="middle">{x:g}</text>'
        for n, x in enumerate(places.tolist())
    ]
