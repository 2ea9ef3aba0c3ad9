"""ESM-2's tokenizer: a look-up of bytes."""

from collections.abc import Sequence

import numpy as np

from common.alphabet import ESM2_TOKENS, PROTEIN, SPECIAL_TOKENS
from workers.models.tokens import Tokens

CLS = ESM2_TOKENS.index("<cls>")
EOS = ESM2_TOKENS.index("<eos>")

#: Token ids by byte; what the reader lets through is in the table, anything else is ``<unk>``.
TOKEN_OF_BYTE = np.full(256, ESM2_TOKENS.index("<unk>"), dtype=np.int64)
for _letter in PROTEIN.letters:
    TOKEN_OF_BYTE[ord(_letter)] = ESM2_TOKENS.index(_letter)


def tokenize_esm2(sequences: Sequence[str]) -> Tokens:
    """``<cls> residues <eos>`` of each sequence (upper case)."""
    lengths = np.array([len(sequence) + SPECIAL_TOKENS for sequence in sequences], dtype=np.int64)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    # One blank stands for <cls> and one for <eos>, so that a single look-up does all sequences.
    text = "".join([f" {sequence} " for sequence in sequences]).encode("ascii")
    ids = TOKEN_OF_BYTE[np.frombuffer(text, dtype=np.uint8)]
    ids[cu_seqlens[:-1]] = CLS
    ids[cu_seqlens[1:] - 1] = EOS
    return Tokens(ids, cu_seqlens)
