"""ESM C's tokenizer: that of ESM-2, whose letters have the same tokens."""

import json
from pathlib import Path

from common.alphabet import ESM2_TOKENS, PROTEIN
from common.errors import UserError
from workers.models.esm2.tokenizer import ESM2_TOKENIZER, ESM2Tokenizer

#: The tokens that embeddings depend on.
USED = ("<cls>", "<eos>", "<unk>", *sorted(PROTEIN.letters))


def tokenizer_in(folder: Path) -> ESM2Tokenizer:
    """Return the tokenizer of a checkpoint's folder.

    Raises:
        UserError: the folder has another vocabulary, or one that cannot be read.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ESM2_TOKENIZER
    try:
        vocabulary = json.loads(file.read_bytes())["model"]["vocab"]
        found = {token: vocabulary[token] for token in USED}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: not a readable tokenizer of ESM C ({error!r}).") from error
    for token, number in found.items():
        if number != ESM2_TOKENS.index(token):
            raise UserError(
                f"{file}: the token {token} is number {number}, and not {ESM2_TOKENS.index(token)} "
                "as in ESM C: this is another model's tokenizer."
            )
    return ESM2_TOKENIZER
