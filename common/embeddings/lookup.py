"""Finding a record by its id."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property

from common.errors import UserError

#: The most ids that are compared with one that was not found: a comparison takes microseconds.
MOST_COMPARED = 20_000


class UnknownIdError(UserError, KeyError):
    """No record has this id, or several have.

    Attributes:
        id: the id that was asked for.
    """

    def __init__(self, message: str, id_: str = "") -> None:
        super().__init__(message)
        self.id = id_

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show it quoted


class IdIndex:
    """The positions of ids. ``P69905`` also finds ``sp|P69905|HBA_HUMAN``."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        return positions_by((id_, index) for index, id_ in enumerate(self.ids))

    @cached_property
    def _by_field(self) -> dict[str, list[int]]:
        """The positions of ids by each of their fields, which ``|`` separates."""
        return positions_by(
            (field, index)
            for index, id_ in enumerate(self.ids)
            if "|" in id_
            for field in set(id_.split("|"))
        )

    def __contains__(self, id_: object) -> bool:
        return id_ in self._positions or id_ in self._by_field

    def positions(self, id_: str) -> list[int]:
        """Return the positions of all records with an id.

        Raises:
            UnknownIdError: there are none; the message names near ids.
        """
        found = self._positions.get(id_) or self._by_field.get(id_)
        if found is None:
            near = self.near(id_)
            hint = f": did you mean {' or '.join(map(repr, near))}?" if near else "."
            raise UnknownIdError(f"No record has the id {id_!r}{hint}", id_)
        return found

    def position(self, id_: str) -> int:
        """Return the position of the one record with an id.

        Raises:
            UnknownIdError: no record has it, or several have.
        """
        found = self.positions(id_)
        if len(found) > 1:
            raise UnknownIdError(
                f"{len(found)} records have the id {id_!r}: positions({id_!r}) tells them apart.",
                id_,
            )
        return found[0]

    def near(self, id_: str) -> list[str]:
        """Return up to three ids, or fields of ids, that resemble ``id_``."""
        names = [*self._positions, *self._by_field]
        if len(names) > MOST_COMPARED:
            names = [name for name in names if name[:2] == id_[:2]][:MOST_COMPARED]
        return get_close_matches(id_, names, cutoff=0.5)


def positions_by(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, index in pairs:
        found.setdefault(name, []).append(index)
    return found
