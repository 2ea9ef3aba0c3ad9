"""Sequences of a program as records: cleaned, checked, and with warnings of what was changed."""

import warnings
from collections import Counter

from common.alphabet import PROTEIN, Alphabet
from common.errors import InputError
from common.job.cleaning import (
    GAP_SIGNS,
    LOOKS_LIKE_DNA,
    SURELY_DNA,
    clean,
    looks_like_nucleic_acid,
    place_of,
    unknown_letters,
)
from common.job.output_form import Gaps, Long, OutputForm
from common.job.records import SHOWN, Record, Sequences, with_ids
from common.text import counted


def checked(
    sequences: Sequences, alphabet: Alphabet, gaps: Gaps
) -> tuple[list[Record], Counter[str]]:
    """Return records in upper case, without white space and a stop at the end.

    Returns:
        The records, and how many are ``gapped``, ``rna``, and ``like_dna``.

    Raises:
        InputError: one is empty, or has a gap that may not be, or a letter outside the alphabet.
    """
    records, found = [], Counter[str]()
    for row, (id_, sequence) in enumerate(with_ids(sequences)):
        residues, gapped, rna = clean(sequence, alphabet, gaps)
        refused = set(GAP_SIGNS) if gapped and gaps == "error" else set()
        refused |= unknown_letters(residues, alphabet)
        if not residues or refused:
            raise bad_sequence(row, id_, sequence, refused, alphabet)
        found["gapped"] += gapped and gaps == "keep"
        found["rna"] += rna
        if alphabet is PROTEIN and len(residues) >= SURELY_DNA:
            found["like_dna"] += looks_like_nucleic_acid(residues)
        records.append(Record(row, id_, residues))
    return records, found


def bad_sequence(
    row: int, id_: str, sequence: str, refused: set[str], alphabet: Alphabet
) -> InputError:
    """Return the error of a sequence that is empty, or has refused signs."""
    name = f"Sequence {row + 1} ({id_[:SHOWN]!r})"
    if not refused:
        return InputError(f"{name} is empty.", record=row + 1)
    _, position, sign = place_of(refused, sequence)
    if sign in GAP_SIGNS:
        why, advice = "a gap", "Give gaps='strip' to remove gaps"
    else:
        why = f"not one of the model's {alphabet.letter}s"
        advice = f"Write {alphabet.unknown} for an unknown one"
    return InputError(
        f"{name} has {sign!r} at position {position}, which is {why}. {advice}.", record=row + 1
    )


def warn_of_changes(found: Counter[str], records: int) -> None:
    """Warn of what was done to sequences, and of DNA that is read as proteins."""
    texts = {
        "with gaps, embedded by tokens of gaps, which the model was not trained on: gaps='strip' "
        "removes them": "gapped",
        "of RNA: U was read as T": "rna",
    }
    for text, name in texts.items():
        if found[name]:
            warnings.warn(f"{counted(found[name], 'sequence')} {text}.", stacklevel=3)
    if 2 * found["like_dna"] > records:
        warnings.warn(f"{LOOKS_LIKE_DNA}.", stacklevel=3)


def check_long(
    records: list[Record], form: OutputForm, long: Long | None, alphabet: Alphabet
) -> None:
    """Warn of records that are truncated because the caller did not choose.

    Raises:
        InputError: there are longer ones than fit, and ``long`` is ``error``.
    """
    limit = form.max_residues
    found = [record for record in records if len(record.residues) > limit]
    if found and long == "error":
        row, id_, residues = found[0]
        raise InputError(
            f"Sequence {row + 1} ({id_!r}) has {len(residues):,} {alphabet.plural}, more than "
            f"the limit of {limit:,}: raise max_residues, or give long='truncate' or 'window'.",
            record=row + 1,
        )
    if found and long is None and form.overlap is None:
        warnings.warn(
            f"{counted(len(found), 'sequence')} longer than {limit:,} {alphabet.plural}: only the "
            f"first {limit:,} of each are embedded. To choose, give long='truncate', 'window' or "
            "'error'.",
            stacklevel=3,
        )
