"""Which of a place's files make up a model: those that are loaded, and those that forbid it."""

from collections.abc import Iterable, Sequence

from common.errors import UserError
from common.model_files import LISTED, PART, SETS

#: Files beside the weights that are loaded, or that show that these are not a whole model.
BESIDE = ("config.json", "tokenizer.json", "vocab.txt", "adapter_config.json")

#: The suffix of fair-esm's files, each of which is a model.
FAIR_ESM = ".pt"


def chosen(names: Iterable[str], place: str) -> list[str]:
    """Return the names of the files to download of a folder, with one set of weights.

    Args:
        place: the folder, for errors.

    Raises:
        UserError: they are not a model.
    """
    found = sorted(names)
    weights = weights_in(found)
    if "config.json" not in found or not weights:
        missing = "config.json" if weights else "model.safetensors or pytorch_model.bin"
        more = f" and {len(found) - LISTED:,} more" if len(found) > LISTED else ""
        raise UserError(
            f"{place}: no {missing}, so there is no model. It has: "
            f"{', '.join(found[:LISTED]) or 'nothing'}{more}."
        )
    return sorted({*weights, *(name for name in BESIDE if name in found)})


def weights_in(names: Sequence[str]) -> list[str]:
    """Return the names of the first set of weights, in the order in which they are looked for."""
    for name in SETS:
        stem, _, suffix = name.partition(".")
        index = f"{name}.index.json"
        if name in names:
            return [name]
        if index in names:
            return [index, *(other for other in names if other.endswith(f".{suffix}"))]
        parts = [other for other in names if (m := PART.fullmatch(other)) and m[1] == stem]
        if parts:
            return parts
    return []
