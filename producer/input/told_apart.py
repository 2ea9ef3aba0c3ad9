"""Telling records of a batch apart: those that are computed, copies, and rows of earlier jobs."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.job.copy_lines import Copy
from common.job.records import Record
from producer.input.identical import NONE, place_of


class Reused(NamedTuple):
    """A record that an earlier job has computed."""

    record: Record
    place: int  # among the rows of earlier jobs


class Told(NamedTuple):
    """Records told apart by what becomes of them."""

    computed: list[Record]
    copies: list[Copy]
    reused: list[Reused]


def told_apart(records: list[Record], originals: NDArray[np.int64], *, begins: bool) -> Told:
    """Tell consecutive records of a batch apart.

    Args:
        begins: whether the first is the first of the batch, which is computed in any case.
    """
    if (originals == NONE).all():
        return Told(records, [], [])
    computed, copies, reused = told = Told([], [], [])
    new_tuple = tuple.__new__
    for record, original in zip(records, originals.tolist(), strict=True):
        if original == NONE or (begins and not computed):
            computed.append(record)
        elif original >= 0:
            row, header, residues = record
            # The constructor of a named tuple takes twice as long.
            copies.append(new_tuple(Copy, (row, original, len(residues), header)))
        else:
            reused.append(Reused(record, place_of(original)))
    return told
