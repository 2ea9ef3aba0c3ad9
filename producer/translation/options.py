"""What of a contig is translated."""

from dataclasses import dataclass
from typing import Literal, Self

from common.errors import UserError
from producer.translation.genetic_codes import amino_acids

#: Bases of a chunk, as VirNucPro's published models were trained on (it has 300, too).
DEFAULT_CHUNK = 500

#: Amino acids of the shortest stretch between two stops that is kept by default: shorter ones are
#: found by chance in any DNA.
SHORTEST_ORF = 30

Kind = Literal["six-frame", "orfs"]


@dataclass(frozen=True)
class Translation:
    """The frames without a stop of each chunk (six-frame), or every stretch between stops (orfs).

    ``chunk`` is in bases, None for whole contigs; ``min_frame`` in amino acids.
    """

    kind: Kind = "six-frame"
    chunk: int | None = DEFAULT_CHUNK
    code: int = 1
    min_frame: int = 1

    @classmethod
    def of(
        cls, kind: Kind, *, chunk: int | None = None, code: int = 1, min_frame: int | None = None
    ) -> Self:
        """Return a translation with the defaults of its kind.

        Raises:
            UserError: there is no such genetic code, or a chunk is shorter than a frame.
        """
        amino_acids(code)
        if kind == "six-frame":
            chunk, shortest = chunk or DEFAULT_CHUNK, 1
        else:
            shortest = SHORTEST_ORF
        min_frame = min_frame or shortest
        if chunk is not None and chunk < 3 * min_frame:
            raise UserError(
                f"chunk {chunk}: a frame of {min_frame} amino acids (min-frame) has "
                f"{3 * min_frame} bases, and would be in none."
            )
        return cls(kind, chunk, code, min_frame)
