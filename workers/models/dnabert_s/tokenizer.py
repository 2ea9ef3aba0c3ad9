"""DNABERT-S's tokenizer: byte-pair encoding by the ``tokenizers`` library."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, product
from pathlib import Path
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer, models

from common.alphabet import DNA, SPECIAL_TOKENS
from common.embeddings.arrays import Array
from common.errors import UserError
from common.memory import is_out_of_memory
from workers.models.dnabert_s.model import VOCABULARY
from workers.models.tokens import Tokens

#: Special tokens of the tokenizer for random weights, by id.
SPECIALS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")

#: The published tokenizer's settings of its model, where they are not off.
MODEL = {"type": "BPE", "unk_token": SPECIALS[0]}

#: A sequence that shows whether a tokenizer changes or cuts sequences beforehand.
SAMPLE = 10 * "".join(sorted(DNA.letters))


#: Sequences that are tokenised together. What follows the library's part holds the interpreter
#: without a break, for which the thread that feeds the GPU waits: 2 ms for this many of 500 bases.
TOGETHER = 512


class DNATokenizer:
    """``[CLS] tokens [SEP]`` of each sequence.

    The special tokens are added here: a file's own template, truncation and padding are ignored.
    """

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        """Check ``tokenizer`` and switch its truncation and padding off.

        Args:
            tokenizer: a tokenizer of the ``tokenizers`` library.
            name: its name in error messages.

        Raises:
            UserError: ``[CLS]``, ``[SEP]`` or a letter is missing, an id is beyond the model's
                vocabulary, or the library fails.
        """
        self.tokenizer = tokenizer
        self.name = name
        tokenizer.no_truncation()
        tokenizer.no_padding()
        highest = max(tokenizer.get_vocab().values(), default=0)
        if highest >= VOCABULARY:
            raise UserError(
                f"{name}: a token has the id {highest}, but DNABERT-S has {VOCABULARY} tokens: "
                "this is another model's tokenizer."
            )
        self.cls = special_id(tokenizer, "[CLS]", name)
        self.sep = special_id(tokenizer, "[SEP]", name)
        letters = sorted(DNA.letters)
        for letter, length in zip(letters, self(letters).lengths, strict=True):
            if length == SPECIAL_TOKENS:  # it would be left out of every sequence
                raise UserError(f"{name}: has no token for {letter}, and none for unknown letters.")

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a checkpoint's ``tokenizer.json``.

        Raises:
            UserError: the file is not readable, or not a tokenizer of this model.
        """
        with failures_explained(str(path)):
            tokenizer = Tokenizer.from_file(str(path))
        return cls(tokenizer, str(path))

    @classmethod
    def own(cls) -> Self:
        """Return the tokenizer for random weights, which needs no file."""
        return cls(own_tokenizer(), "the tokenizer for random weights")

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token and its id."""
        return self.tokenizer.get_vocab()

    @property
    def deviations(self) -> str:
        """What is unlike the published tokenizer, besides its vocabulary; empty if nothing is."""
        with failures_explained(self.name):
            return deviations(self.tokenizer)

    def __call__(self, sequences: Sequence[str]) -> Tokens:
        """Return the tokens of ``sequences`` (upper case), on several cores."""
        parts = [
            self._tokens(sequences[first : first + TOGETHER])
            for first in range(0, len(sequences), TOGETHER)
        ] or [self._tokens([])]
        lengths = np.concatenate([lengths for _, lengths in parts])
        cu_seqlens = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        return Tokens(np.concatenate([ids for ids, _ in parts]), cu_seqlens)

    def _tokens(self, sequences: Sequence[str]) -> tuple[Array, Array]:
        """Return the tokens of some sequences, and how many each has."""
        with failures_explained(self.name):
            encodings = self.tokenizer.encode_batch_fast(sequences, add_special_tokens=False)
        pieces = [encoding.ids for encoding in encodings]
        lengths = np.array([len(piece) for piece in pieces], np.int64) + SPECIAL_TOKENS
        ends = np.cumsum(lengths)
        ids = np.empty(int(lengths.sum()), np.int64)
        is_letter = np.ones(len(ids), np.bool_)
        for places, token in ((ends - lengths, self.cls), (ends - 1, self.sep)):
            ids[places], is_letter[places] = token, False
        ids[is_letter] = np.fromiter(chain.from_iterable(pieces), np.int64)
        return ids, lengths


@contextmanager
def failures_explained(name: str) -> Iterator[None]:
    """Raise UserError if the ``tokenizers`` library fails, MemoryError if for lack of memory; a
    panic of it is no ``Exception``.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error  # a panic would pass every "except Exception"
        raise UserError(f"{name}: not a readable tokenizer ({error}).") from error


def deviations(tokenizer: Tokenizer) -> str:
    """Return what is unlike the published tokenizer; empty if nothing is.

    Not its post-processor, truncation, padding and decoder, which are not used here.
    """
    content = json.loads(tokenizer.to_str())
    model = dict(content["model"])
    vocabulary, merges = model.pop("vocab"), model.pop("merges", [])
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    found: dict[str, Any] = {
        "added_tokens": [t for t in content["added_tokens"] if t["content"] not in SPECIALS],
        "model": {
            name: value for name, value in model.items() if value and value != MODEL.get(name)
        },
        # A token's id is its rank among the merges, which follow from the vocabulary then.
        "merges": [] if are_ranked(merges, vocabulary) else merges,
    }
    if normalizer is not None and normalizer.normalize_str(SAMPLE) != SAMPLE:
        found["normalizer"] = content["normalizer"]
    if pre_tokenizer is not None and len(pre_tokenizer.pre_tokenize_str(SAMPLE)) > 1:
        found["pre_tokenizer"] = content["pre_tokenizer"]
    found = {name: value for name, value in found.items() if value}
    return json.dumps(found, sort_keys=True) if found else ""


def are_ranked(merges: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> bool:
    """Return whether merges come in the order of the ids of the tokens that they make."""
    ids = list(dict.fromkeys(vocabulary["".join(merge)] for merge in merges))
    return ids == sorted(ids)


def special_id(tokenizer: Tokenizer, token: str, name: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise UserError(f"{name}: has no {token} token, unlike DNABERT-S's tokenizer.")
    return int(found)


#: Lengths of the two parts of each merge of the tokenizer for random weights, by rank: first pairs
#: and fours, then merges with the bases left between them. They give 4.4 bases per token in random
#: DNA; the published tokenizer has about 5.
MERGED_LENGTHS = (
    *((1, 1), (2, 2), (1, 4), (4, 1), (1, 2), (2, 1)),
    *((3, 2), (2, 3), (4, 2), (2, 4), (3, 3)),
)


def own_tokenizer() -> Tokenizer:
    """Return a byte-pair encoding of 4096 tokens that is built without data.

    Its tokens are all sequences of 1 to 5 bases, and as many of 6 as fit. Any other letter is
    ``[UNK]``.
    """
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *"ACGT"])}
    merges = []
    for lengths in MERGED_LENGTHS:
        for left, right in product(*map(all_of_length, lengths)):
            if left + right in vocabulary or len(vocabulary) < VOCABULARY:
                vocabulary.setdefault(left + right, len(vocabulary))
                merges.append((left, right))
    return Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=SPECIALS[0]))


def all_of_length(length: int) -> list[str]:
    return ["".join(bases) for bases in product("ACGT", repeat=length)]
