"""Columns of a table, by the ids of rows, to colour points by."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.errors import InputError, UserError
from producer.input.tables import delimiter_of
from producer.report.contents import Colour

#: The most columns that are read if none are named, and those that a message names.
MOST_COLUMNS = 20

#: A number as tables have it. ``float`` takes more, such as the labels 1_2 and infinity.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)

#: What stands for a missing value, in lower case.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "."})


def read_colours(path: Path, columns: Sequence[str], ids: Sequence[str]) -> list[Colour]:
    """Return columns of a CSV or TSV file for rows with these ids.

    The column of ids is the one named ``id``, or else the first. ``P69905`` there is also the row
    ``sp|P69905|HBA_HUMAN``. Of rows with the same id, the first counts.

    Args:
        columns: their names; empty: all but the one of ids.

    Raises:
        UserError: the file cannot be read, has no such column, or none of the ids.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            if first.startswith(">"):
                raise UserError(f"{path} is FASTA, not a table with a column of ids and others.")
            delimiter = delimiter_of(first)
            names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            id_place, places = places_of(names, columns, path)
            found = cells_by_id(csv.reader(file, delimiter=delimiter), id_place, places, ids)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not a table ({error})"
        raise InputError(f"{path} cannot be read: {reason}.", path=path) from error
    if ids and not found:
        raise UserError(
            f"{path}: no id in its column {names[id_place]!r} is one of these embeddings, such as "
            f"{ids[0]!r}. The column of ids is the one named 'id', or else the first."
        )
    nothing = [""] * len(places)
    rows = [cells_of(id_, found) or nothing for id_ in ids]
    return [colour_of(names[place], [row[k] for row in rows]) for k, place in enumerate(places)]


def places_of(names: Sequence[str], wanted: Sequence[str], path: Path) -> tuple[int, list[int]]:
    """Return the place of the column of ids, and those of the columns that are wanted."""
    id_place = next((k for k, name in enumerate(names) if name.lower() == "id"), 0)
    others = [name for k, name in enumerate(names) if k != id_place]
    missing = [name for name in wanted if name not in names]
    if missing or not others:
        there = ", ".join(map(repr, names[:MOST_COLUMNS]))
        what = f"no column {missing[0]!r}" if missing else "no column but the one of ids"
        raise UserError(f"{path} has {what}. Its columns are {there}.", path=path)
    return id_place, [names.index(name) for name in (wanted or others[:MOST_COLUMNS])]


def cells_by_id(
    rows: Iterable[list[str]], id_place: int, places: Sequence[int], ids: Sequence[str]
) -> dict[str, list[str]]:
    """Return the cells of the rows of a table that have one of these ids, or a part of one."""
    known = {part for id_ in ids for part in (id_, *id_.split("|"))}
    found: dict[str, list[str]] = {}
    for row in rows:
        id_ = row[id_place].strip() if id_place < len(row) else ""
        if id_ in known and id_ not in found:
            found[id_] = [row[place].strip() if place < len(row) else "" for place in places]
    return found


def cells_of(id_: str, found: Mapping[str, list[str]]) -> list[str] | None:
    if id_ in found:
        return found[id_]
    return next((found[part] for part in id_.split("|") if part and part in found), None)


def colour_of(name: str, cells: Sequence[str]) -> Colour:
    """Return a column: numbers if all cells that have a value are, else texts."""
    values = [cell for cell in cells if cell.lower() not in MISSING]
    if values and all(map(NUMBER.fullmatch, values)):
        numbers = [float(cell) if cell.lower() not in MISSING else np.nan for cell in cells]
        return Colour(name, np.array(numbers, np.float32))
    return categories(name, [cell or "(none)" for cell in cells])


def categories(name: str, texts: Sequence[str]) -> Colour:
    """Return a column of texts, the most frequent first."""
    values, places, counts = np.unique(
        np.array(texts, object), return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return Colour(name, rank[places], tuple(values[order].tolist()))
