"""VirNucPro's own feature files, which its scripts and its fork's read."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError
from producer.output.layouts.torch_file import Numbers, TensorList, Value, save
from producer.virnucpro.classifier import Floats
from producer.virnucpro.features import Features

#: Frames of a file at most, as VirNucPro splits them.
FRAMES_OF_A_FILE = 10_000

#: The ends of the three files of some frames.
DNA, PROTEINS, MERGED = "DNABERT_S", "ESM", "merged"


def write_feature_files(features: Iterable[Features], dna_width: int, folder: Path) -> int:
    """Write three files for every 10,000 frames; return the number of frames.

    They are ``output_1_DNABERT_S.pt``, ``output_1_ESM.pt`` and ``output_1_merged.pt``, then
    ``output_2_…``, with the same frames in the same order. Frames that a model has no embedding of
    are left out: the scripts do not expect NaN.

    Args:
        dna_width: numbers of the vector of a frame's DNA, which comes first.
        folder: where they are written; files of these names are replaced.

    Raises:
        UserError: a file cannot be written.
    """
    count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (ids, vectors) in enumerate(files_of(features), start=1):
            for kind, content in contents(ids, vectors, dna_width).items():
                path = folder / f"output_{number}_{kind}.pt"
                path.unlink(missing_ok=True)
                save(path, content)
            count += len(ids)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}.", path=folder) from error
    return count


def files_of(
    features: Iterable[Features],
) -> Iterator[tuple[list[str], Floats]]:
    """Yield the ids and the vectors of each file's frames."""
    ids: list[str] = []
    vectors: list[Floats] = []
    for block in features:
        known = np.flatnonzero(~np.isnan(block.vectors).any(axis=1))
        left = [block.ids[place] for place in known.tolist()], block.vectors[known]
        while left[0]:
            room = FRAMES_OF_A_FILE - len(ids)
            ids += left[0][:room]
            vectors.append(left[1][:room])
            left = left[0][room:], left[1][room:]
            if len(ids) == FRAMES_OF_A_FILE:
                yield ids, np.concatenate(vectors)
                ids, vectors = [], []
    if ids:
        yield ids, np.concatenate(vectors)


def contents(
    ids: Sequence[str],
    vectors: Floats,
    dna_width: int,
) -> dict[str, dict[str, Value]]:
    """Return what each file of some frames holds."""
    dna: list[Value] = [
        {"label": id_, "mean_representation": Numbers(row)}
        for id_, row in zip(ids, vectors[:, :dna_width], strict=True)
    ]
    return {
        DNA: {"nucleotide": list(ids), "data": dna},
        PROTEINS: {"proteins": list(ids), "data": TensorList(vectors[:, dna_width:])},
        MERGED: {"ids": list(ids), "data": vectors},
    }
