"""Contigs called viral or not, from the scores of their chunks.

The rule is that of Broad's viral-ngs for VirNucPro's results.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.embeddings.arrays import Array
from common.errors import UserError

#: The weighted difference of scores from which a contig is called one of the classes.
CALLED = 0.3

#: The weighted difference above which a call with confident chunks is of high confidence.
HIGH = 0.6

#: The scores of a confident chunk: of its class above the first, of the other below the second.
WINNER, LOSER = 0.8, 0.3

#: The score above which both are of an ambiguous chunk.
BOTH = 0.7

#: The least share of confident chunks, of those that are not ambiguous.
ENOUGH_CONFIDENT = 0.1

#: Chunks below which a contig's tier is one lower.
ENOUGH_CHUNKS = 5

CALLS = ("Viral", "Non-viral", "Ambiguous", "none")

TIERS = ("high_confidence", "moderate_confidence", "low_confidence", "review", "none")

#: The columns of a table of calls that Broad's has too, and the tier and the call among them.
COLUMNS = (
    *("ID", "call", "tier", "weighted_delta", "n_chunks", "n_confident_viral"),
    *("n_confident_nonviral", "n_ambiguous", "viral_proportion", "nonviral_proportion"),
)


@dataclass(frozen=True)
class Calls:
    """The calls of g groups of chunks, as a rule the chunks of a contig each."""

    calls: Array  # [g], places in CALLS
    tiers: Array  # [g], places in TIERS
    deltas: Array  # float64 [g]
    chunks: Array  # [g], those with a score
    confident: Array  # [g, 2], of the classes others and virus
    ambiguous: Array  # [g]

    @property
    def proportions(self) -> Array:
        """Confident chunks of each class, as a share of those that are not ambiguous ``[g, 2]``."""
        clear = np.maximum(self.chunks - self.ambiguous, 1)
        return np.asarray(self.confident / clear[:, None])

    def texts(self, group: int) -> list[str]:
        """Return a group's columns after the ID; without a chunk that has a score, no numbers."""
        named = [CALLS[int(self.calls[group])], TIERS[int(self.tiers[group])]]
        if not self.chunks[group]:
            return [*named, "", "0", "0", "0", "0", "", ""]
        others, virus = self.confident[group].tolist()
        of_others, of_virus = self.proportions[group].tolist()
        counts = int(self.chunks[group]), virus, others, int(self.ambiguous[group])
        shares = f"{of_virus:.3f}", f"{of_others:.3f}"
        return [*named, f"{self.deltas[group]:.3f}", *map(str, counts), *shares]


def call_groups(maxima: Array, groups: Array, count: int) -> Calls:
    """Return the calls of groups of chunks.

    With δ = max(score2) - max(score1) of each chunk and w = √|δ|, the weighted difference of a
    group is Σδw / Σw.

    Args:
        maxima: the highest score of each class in each chunk ``[c, 2]``, none of them NaN.
        groups: the number of each chunk's group ``[c]``.
        count: of the groups.
    """
    others, virus = (maxima[:, k].astype(np.float64) for k in range(2))
    differences = virus - others
    weights = np.sqrt(np.abs(differences))
    total = sums(groups, weights, count)
    weighted = sums(groups, differences * weights, count)
    deltas = np.divide(weighted, total, out=np.zeros(count), where=total > 0)
    chunks = np.bincount(groups, minlength=count)
    confident = np.stack(
        [
            np.bincount(groups[(one > WINNER) & (other < LOSER)], minlength=count)
            for one, other in ((others, virus), (virus, others))
        ],
        axis=1,
    )
    ambiguous = np.bincount(groups[(others > BOTH) & (virus > BOTH)], minlength=count)
    calls = np.select([chunks == 0, deltas > CALLED, deltas < -CALLED], [3, 0, 1], 2)
    found = Calls(calls, np.zeros(count, np.int64), deltas, chunks, confident, ambiguous)
    return Calls(calls, tiers_of(found), deltas, chunks, confident, ambiguous)


def sums(groups: Array, values: Array, count: int) -> Array:
    return np.bincount(groups, weights=values, minlength=count)


def tiers_of(found: Calls) -> Array:
    """Return the tier of each call."""
    of_class = np.where(found.calls == 0, found.confident[:, 1], found.confident[:, 0])
    share = np.where(found.calls == 0, found.proportions[:, 1], found.proportions[:, 0])
    is_sure = (of_class > 0) & (share >= ENOUGH_CONFIDENT)
    tiers = np.select([is_sure & (np.abs(found.deltas) > HIGH), is_sure], [0, 1], 2)
    few = found.chunks < ENOUGH_CHUNKS
    tiers = np.where(few, np.where(tiers < 2, 2, 3), tiers)
    return np.select([found.calls == 3, found.calls == 2], [4, 3], tiers)


class Groups:
    """The groups that contigs are called in: each by itself, or those with the same text."""

    def __init__(self, pattern: str | None = None) -> None:
        """Group nothing yet.

        Args:
            pattern: a regular expression: contigs are together if it finds the same in their ids,
                its first group, if it has one. Those in whose ids it finds nothing are alone.

        Raises:
            UserError: it is no regular expression.
        """
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise UserError(f"--group {pattern}: no regular expression ({error}).") from error
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def add(self, contig: str) -> int:
        """Return the number of a contig's group."""
        found = None if self._pattern is None else self._pattern.search(contig)
        if found is None:
            self.names.append(contig)
            return len(self.names) - 1
        name = found[1] if found.re.groups and found[1] is not None else found[0]
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


def natural_order(names: Sequence[str]) -> list[int]:
    """Return the places of names in their natural order: x_2 before x_10."""
    return sorted(range(len(names)), key=lambda place: natural_key(names[place]))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return what a name is sorted by: its numbers as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if n % 2 else (1, 0, part) for n, part in enumerate(parts) if part]


def table_of(
    names: Sequence[str], calls: Calls, more_columns: Sequence[str], more: Array
) -> Iterator[str]:
    """Yield the lines of a table of calls, in natural order.

    Args:
        names: of the groups.
        more_columns: the names of further columns.
        more: whole numbers ``[g, k]`` of these.
    """
    yield "\t".join([*COLUMNS, *more_columns]) + "\n"
    for group in natural_order(names):
        numbers: Iterable[str] = map(str, more[group].tolist())
        yield "\t".join([names[group], *calls.texts(group), *numbers]) + "\n"
