"""Packing: consecutive whole segments, up to a token budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workers.models.tokens import Tokens


@dataclass(frozen=True)
class Pack(Tokens):
    """The input of one ``forward_packed`` call, and its place in the batch."""

    first: int  # position of its first segment in the batch

    @property
    def segments(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def max_seqlen(self) -> int:
        return int(self.lengths.max())


def split_into_packs(token_counts: Sequence[int], budget: int) -> Iterator[slice]:
    """Cut consecutive segments into packs of at most ``budget`` tokens.

    A segment longer than the budget is a pack of its own.
    """
    start, total = 0, 0
    for position, tokens in enumerate(token_counts):
        if position > start and total + tokens > budget:
            yield slice(start, position)
            start, total = position, 0
        total += tokens
    if start < len(token_counts):
        yield slice(start, len(token_counts))


def make_packs(tokens: Tokens, budget: int) -> Iterator[Pack]:
    """Cut a batch's tokens into packs, in order; no token is copied."""
    for part in split_into_packs(tokens.lengths.tolist(), budget):
        bounds = tokens.cu_seqlens[part.start : part.stop + 1]
        yield Pack(tokens.ids[bounds[0] : bounds[-1]], bounds - bounds[0], part.start)
