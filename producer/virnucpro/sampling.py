"""A sample of frames, computed in two precisions, and what differs."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.embeddings.arrays import Array
from producer.submission.frames import Frames
from producer.virnucpro.chunk_scores import FRAME_LETTERS, Scored, chunks_of
from producer.virnucpro.classifier import Classifier, Floats
from producer.virnucpro.features import Features

#: Chunks of a sample, which are as far apart in the input as they can be.
SAMPLE_CHUNKS = 500


class Sample(NamedTuple):
    """Some chunks of an input."""

    frames: Frames  # with the frames of these chunks alone in its files
    rows: Array  # [n], of these frames in the whole input


class Comparison(NamedTuple):
    """How many frames and chunks have another label in another precision."""

    frames: int
    frames_changed: int
    chunks: int
    chunks_changed: int
    largest: float  # difference of two scores


def sample_of(frames: Frames, chunks: int, folder: Path) -> Sample:
    """Write the frames of some chunks into a folder.

    Args:
        chunks: number of chunks that have a frame.
        folder: which is there.
    """
    step = max(1, -(-chunks // SAMPLE_CHUNKS))
    paths = [folder / frames.proteins.name, folder / frames.dna.name]
    rows = write_every(frames.proteins, paths[0], step)
    write_every(frames.dna, paths[1], step)
    report = frames.report.model_copy(update={"frames": len(rows)})
    return Sample(replace(frames, proteins=paths[0], dna=paths[1], report=report), rows)


def write_every(source: Path, path: Path, step: int) -> Array:
    """Write the records of every so many chunks; return their numbers."""
    rows: list[int] = []
    with source.open(encoding="utf-8") as file, path.open("w", encoding="utf-8") as out:
        by_chunk = groupby(enumerate(records_of(file)), lambda one: one[1][0][: -FRAME_LETTERS - 1])
        for _, records in islice(by_chunk, 0, None, step):
            for row, (header, letters) in records:
                out.write(header + letters)
                rows.append(row)
    return np.array(rows, np.int64)


def records_of(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the two lines of each record."""
    rest = iter(lines)
    return zip(rest, rest, strict=True)


def scores_of_rows(features: Iterable[Features], classifier: Classifier, rows: Array) -> Scored:
    """Return the scores of some frames of an input."""
    found = [block for block in chosen(features, rows) if block.ids]
    vectors = np.concatenate([block.vectors for block in found])
    ids = [id_ for block in found for id_ in block.ids]
    return Scored(ids, np.zeros(len(ids), np.int64), classifier.scores(vectors))


def chosen(features: Iterable[Features], rows: Array) -> Iterator[Features]:
    for block in features:
        places = np.flatnonzero(np.isin(block.rows, rows))
        ids = [block.ids[place] for place in places.tolist()]
        yield Features(ids, block.rows[places], block.vectors[places])


def compare(one: Scored, other: Scored) -> Comparison:
    """Compare the labels of the same frames in two precisions.

    A frame without a score in either is left out.
    """
    known = np.asarray(~np.isnan(one.scores + other.scores).any(axis=1))
    pair = [known_of(each, known) for each in (one, other)]
    labels = [each.scores.argmax(axis=1) for each in pair]
    viral = [chunks_of([each]).is_virus for each in pair]
    differences: Floats = np.abs(pair[0].scores - pair[1].scores)
    return Comparison(
        frames=int(known.sum()),
        frames_changed=int((labels[0] != labels[1]).sum()),
        chunks=len(viral[0]),
        chunks_changed=int((viral[0] != viral[1]).sum()),
        largest=float(differences.max(initial=0)),
    )


def known_of(each: Scored, known: Array) -> Scored:
    places = np.flatnonzero(known)
    ids = [each.ids[place] for place in places.tolist()]
    return Scored(ids, each.contigs[places], each.scores[places])
