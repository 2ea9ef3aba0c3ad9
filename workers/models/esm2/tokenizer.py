"""ESM-2's tokenizer: a table of bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.alphabet import ESM2_TOKENS, PROTEIN, SPECIAL_TOKENS
from common.errors import UserError
from workers.models.tokens import Tokens

CLS = ESM2_TOKENS.index("<cls>")
EOS = ESM2_TOKENS.index("<eos>")

#: Token ids by byte: those of the alphabet's letters, and ``<unk>`` for any other byte.
TOKEN_OF_BYTE = np.full(256, ESM2_TOKENS.index("<unk>"), dtype=np.int64)
for _letter in PROTEIN.letters:
    TOKEN_OF_BYTE[ord(_letter)] = ESM2_TOKENS.index(_letter)


class ESM2Tokenizer:
    """``<cls> residues <eos>`` of each sequence."""

    #: Empty: all ESM-2 weights have the same tokens.
    vocabulary: Mapping[str, int] = {}
    deviations = ""

    def __call__(self, sequences: Sequence[str]) -> Tokens:
        """Return the tokens of ``sequences`` (upper case)."""
        lengths = [len(sequence) + SPECIAL_TOKENS for sequence in sequences]
        cu_seqlens = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        # One blank is replaced by <cls> and one by <eos>: a single look-up serves all sequences.
        text = "".join([f" {sequence} " for sequence in sequences]).encode("ascii")
        ids = TOKEN_OF_BYTE[np.frombuffer(text, dtype=np.uint8)]
        ids[cu_seqlens[:-1]] = CLS
        ids[cu_seqlens[1:] - 1] = EOS
        return Tokens(ids, cu_seqlens)


ESM2_TOKENIZER = ESM2Tokenizer()


def tokenizer_in(folder: Path) -> ESM2Tokenizer:
    """Return the tokenizer of a checkpoint's folder.

    Raises:
        UserError: the folder has another vocabulary.
    """
    file = folder / "vocab.txt"
    if file.is_file() and tuple(file.read_text(errors="replace").split()) != ESM2_TOKENS:
        raise UserError(
            f"{file}: other tokens, or in another order, than ESM-2 has: this is another model's "
            "vocabulary."
        )
    return ESM2_TOKENIZER
