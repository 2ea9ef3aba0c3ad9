"""The files of VirNucPro's predictions, byte for byte as it writes them."""

from collections.abc import Iterator
from typing import Literal, TextIO

import numpy as np

from producer.virnucpro.chunk_scores import Chunks, Scored
from producer.virnucpro.classifier import CLASSES, Floats

#: The columns of the highest scores: VirNucPro's, or those of Broad's fork.
ScoreColumns = Literal["original", "broad"]

FRAME_COLUMNS = ("Sequence_ID", "Prediction", "score1", "score2")


def write_header(file: TextIO) -> None:
    """Write the first line of ``prediction_results.txt``."""
    file.write("\t".join(FRAME_COLUMNS) + "\n")


def write_frames(file: TextIO, frames: Scored) -> None:
    """Write the lines of frames that have a score."""
    kept = np.flatnonzero(~np.isnan(frames.scores[:, 0]))
    scores = frames.scores[kept]
    labels = [CLASSES[label] for label in scores.argmax(axis=1).tolist()]
    texts = [texts_of(scores[:, k]) for k in range(len(CLASSES))]
    ids = [frames.ids[place] for place in kept.tolist()]
    lines = zip(ids, labels, *texts, strict=True)
    file.write("".join([f"{a}\t{b}\t{c}\t{d}\n" for a, b, c, d in lines]))


def texts_of(values: Floats) -> list[str]:
    """Return numbers as the shortest decimals that give the float32 back."""
    found: list[str] = values.astype("U32").tolist()
    return found


def highest_scores(chunks: Chunks, columns: ScoreColumns) -> Iterator[str]:
    """Yield the lines of ``prediction_results_highestscore.csv``, which tabs separate all the same.

    The original's chunks are in the order of their ids as texts, _10 before _2; those of the fork
    in that of the input.
    """
    is_virus = chunks.is_virus.tolist()
    if columns == "original":
        yield "Modified_ID\tIs_Virus\n"
        for place in sorted(range(len(chunks.ids)), key=chunks.ids.__getitem__):
            yield f"{chunks.ids[place]}\t{is_virus[place]}\n"
        return
    yield "Modified_ID\tIs_Virus\tmax_score_0\tmax_score_1\n"
    texts = [texts_of(chunks.maxima[:, k]) for k in range(len(CLASSES))]
    for id_, virus, one, other in zip(chunks.ids, is_virus, *texts, strict=True):
        yield f"{id_}\t{virus}\t{one}\t{other}\n"
