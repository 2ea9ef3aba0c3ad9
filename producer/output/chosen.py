"""Choosing rows by their ids, as ``fetch --ids`` asks for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from common.bounded_map import bounded_map
from common.embeddings.lookup import UnknownIdError
from common.errors import UserError
from producer.output.contents import Names, Rows

#: A row: its block, its position in it, its length, and its number in the input.
Place = tuple[int, int, int, int]


@dataclass
class Chosen:
    """The rows that are chosen."""

    #: Their positions in each block that has some.
    positions: dict[int, list[int]] = field(default_factory=dict)
    #: Their numbers in the input.
    rows: dict[int, list[int]] = field(default_factory=dict)
    records: int = 0
    residues: int = 0
    pairs: int = 0  # of residues of one row


def rows_with_ids(rows: Rows, ids: Iterable[str]) -> Chosen:
    """Find all rows with some ids. ``P69905`` also finds ``sp|P69905|HBA_HUMAN``.

    Raises:
        UnknownIdError: no row has one of them.
    """
    by_id: dict[str, list[Place]] = {id_: [] for id_ in ids}
    by_field: dict[str, list[Place]] = {id_: [] for id_ in by_id}
    for block, names in enumerate(bounded_map(rows.names, range(rows.blocks), 1)):

        def place(position: int, block: int = block, names: Names = names) -> Place:
            return block, position, int(names.lengths[position]), int(names.rows[position])

        for position, id_ in enumerate(names.ids):
            if id_ in by_id:
                by_id[id_].append(place(position))
            elif "|" in id_:
                for part in by_field.keys() & set(id_.split("|")):
                    by_field[part].append(place(position))
    # An id as a whole comes before a part of another, as in EmbeddingFile.
    places = {id_: by_id[id_] or by_field[id_] for id_ in by_id}
    missing = [id_ for id_, found_at in places.items() if not found_at]
    if missing:
        more = f", nor {len(missing) - 1:,} more of those asked for" if len(missing) > 1 else ""
        raise UnknownIdError(f"No record has the id {missing[0]!r}{more}.", missing[0])
    chosen = Chosen()
    for block, position, length, row in sorted({p for each in places.values() for p in each}):
        chosen.positions.setdefault(block, []).append(position)
        chosen.rows.setdefault(block, []).append(row)
        chosen.records += 1
        chosen.residues += length
        chosen.pairs += length**2
    return chosen


def ids_named(values: Iterable[str]) -> tuple[str, ...]:
    """Return the ids that a user names: each itself, or a file with an id in each line.

    Of a line, only the first word counts, and a ``>`` before it does not.

    Raises:
        UserError: a file cannot be read, or has no ids.
    """
    ids: list[str] = []
    for value in values:
        path = Path(value)
        try:
            if not path.is_file():
                ids.append(value)
                continue
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f"--ids {value}: the file cannot be read: {error}.") from error
        found = [line.removeprefix(">").split()[0] for line in lines if line.strip("> \t")]
        if not found:
            raise UserError(f"--ids {value}: the file has no ids.")
        ids += found
    return tuple(ids)
