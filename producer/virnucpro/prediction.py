"""From the features of frames to scores, and from these to all files of a prediction."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from common.embeddings.arrays import Array
from common.errors import UserError
from producer.submission.frames import Frames
from producer.virnucpro.calls import CALLS, TIERS, Calls, Groups, call_groups, table_of
from producer.virnucpro.chunk_scores import Scored, chunks_of
from producer.virnucpro.classifier import Classifier
from producer.virnucpro.features import Features
from producer.virnucpro.result_files import ScoreColumns, highest_scores, write_frames, write_header

RESULTS, HIGHEST = "prediction_results.txt", "prediction_results_highestscore.csv"
CONTIGS = "contigs.tsv"

#: The columns of ``contigs.tsv`` after those of Broad's table of calls.
MORE_COLUMNS = ("length", "chunks", "frames", "chunks_without_frame", "frames_without_score")


class Contigs(NamedTuple):
    """The contigs of an input, in its order."""

    ids: list[str]
    numbers: Array  # [c, 4]: length, chunks, frames, chunks without a frame

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the table that ``write_frames`` of a submission wrote."""
        ids, numbers = [], array("q")
        with path.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                id_, *columns = line.rstrip("\n").split("\t")
                ids.append(id_)
                numbers.extend(map(int, columns))
        return cls(ids, np.array(numbers, np.int64).reshape(-1, 4))

    @property
    def lengths(self) -> Array:
        return self.numbers[:, 0]

    def of_rows(self, rows: Array) -> Array:
        """Return the number of the contig that each frame is of, by its row."""
        return np.searchsorted(np.cumsum(self.numbers[:, 2]), rows, side="right")


@dataclass(frozen=True)
class Prediction:
    """What was predicted."""

    names: list[str]  # of the groups that were called, as a rule contigs
    calls: Calls
    maxima: Array  # [c, 2], the highest score of each class in each chunk with a score
    frames: int
    frames_without_score: int

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of groups of each call and tier."""
        return {
            call: {
                tier: count
                for t, tier in enumerate(TIERS)
                if (count := int(((self.calls.calls == c) & (self.calls.tiers == t)).sum()))
            }
            for c, call in enumerate(CALLS)
        }


def predict(
    features: Iterable[Features],
    classifier: Classifier,
    frames: Frames,
    folder: Path,
    *,
    scores: ScoreColumns = "original",
    groups: Groups,
    on_frames: Callable[[int], None] = lambda _frames: None,
) -> Prediction:
    """Write the result files of an input into a folder.

    Args:
        features: of all its frames, in their order.
        frames: the input.
        scores: which columns the highest scores have.
        groups: in which contigs are called, with none in them yet.
        on_frames: called with the number of frames that were scored.

    Raises:
        OSError: a file cannot be written.
        UserError: the features have another width than the classifier.
    """
    contigs = Contigs.read(frames.contigs)
    of_contigs = np.array([groups.add(contig) for contig in contigs.ids], np.int64)
    without_score = np.zeros(len(contigs.ids), np.int64)
    with (folder / RESULTS).open("w", encoding="utf-8", newline="\n") as file:
        write_header(file)

        def written() -> Iterator[Scored]:
            for block in scored(features, classifier, contigs):
                write_frames(file, block)
                missing = block.contigs[np.isnan(block.scores[:, 0])]
                np.add.at(without_score, missing, 1)
                on_frames(len(block.ids))
                yield block

        chunks = chunks_of(written())
    write_lines(folder / HIGHEST, highest_scores(chunks, scores))
    count = len(groups.names)
    calls = call_groups(chunks.maxima, of_contigs[chunks.contigs], count)
    more = np.zeros((count, len(MORE_COLUMNS)), np.int64)
    np.add.at(more, of_contigs, np.column_stack([contigs.numbers, without_score]))
    write_lines(folder / CONTIGS, table_of(groups.names, calls, MORE_COLUMNS, more))
    return Prediction(
        groups.names, calls, chunks.maxima, frames.report.frames, int(without_score.sum())
    )


def scored(
    features: Iterable[Features], classifier: Classifier, contigs: Contigs
) -> Iterator[Scored]:
    """Yield frames with their scores."""
    for block in features:
        check_width(classifier, block.vectors.shape[1])
        yield Scored(block.ids, contigs.of_rows(block.rows), classifier.scores(block.vectors))


def check_width(classifier: Classifier, width: int) -> None:
    """Check that features fit a classifier.

    Raises:
        UserError: they have another width.
    """
    if width != classifier.features:
        raise UserError(
            f"The classifier takes {classifier.features:,} numbers for a frame, and these models "
            f"give {width:,}. VirNucPro's own take 3,328: 768 of DNABERT-S and 2,560 of ESM-2 3B. "
            "Name the models that it was trained on (--dna-model, --protein-model)."
        )


def write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
