"""Records to packs: tokens of whole segments, one after another, up to a budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.alphabet import ESM2_LETTERS, ESM2_TOKENS, SPECIAL_TOKENS

CLS = ESM2_TOKENS.index("<cls>")
EOS = ESM2_TOKENS.index("<eos>")

#: Token ids by byte; what the reader lets through is in the table, anything else is ``<unk>``.
TOKEN_OF_BYTE = np.full(256, ESM2_TOKENS.index("<unk>"), dtype=np.int64)
for _letter in ESM2_LETTERS:
    TOKEN_OF_BYTE[ord(_letter)] = ESM2_TOKENS.index(_letter)


@dataclass(frozen=True)
class Pack:
    """What one ``forward_packed`` call takes, and which records of the batch it holds."""

    first: int  # position in the batch of the first record
    input_ids: NDArray[np.int64]  # [T]
    cu_seqlens: NDArray[np.int32]  # [N + 1]

    @property
    def segments(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def max_seqlen(self) -> int:
        return int(np.diff(self.cu_seqlens).max())


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


def make_packs(sequences: Sequence[str], budget: int) -> Iterator[Pack]:
    """Tokenise ``sequences`` (upper case) into packs, in order."""
    counts = [len(sequence) + SPECIAL_TOKENS for sequence in sequences]
    for part in split_into_packs(counts, budget):
        yield make_pack(part.start, sequences[part])


def make_pack(first: int, sequences: Sequence[str]) -> Pack:
    """Tokenise and concatenate: ``<cls> residues <eos>`` for each sequence."""
    counts = np.array([len(sequence) + SPECIAL_TOKENS for sequence in sequences])
    cu_seqlens = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    # One blank stands for <cls> and one for <eos>, so that a single look-up does all segments.
    text = "".join([f" {sequence} " for sequence in sequences]).encode("ascii")
    input_ids = TOKEN_OF_BYTE[np.frombuffer(text, dtype=np.uint8)]
    input_ids[cu_seqlens[:-1]] = CLS
    input_ids[cu_seqlens[1:] - 1] = EOS
    return Pack(first, input_ids, cu_seqlens)
