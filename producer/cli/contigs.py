"""The options of contigs that are read, of commands that translate them as VirNucPro does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from common.job.output_form import Empty, Gaps, Invalid, Unknown
from common.rungs import PrecisionChoice
from producer.cli.reading import Reading


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Contigs:
    """What is read of contigs, and how it is computed.

    Parameters
    ----------
    list_
        A file with the name of an input in each line.
    sequence
        A sequence itself; the first has the id seq_1. May be given several times.
    invalid
        What to do with a contig that has no sequence, is shorter than --min-length, or has a letter
        that is none of IUPAC's codes of bases: refuse the input, skip the contig, or read the
        letter as N and skip the others.
    unknown
        The same for letters alone; default: as --invalid.
    gaps
        What to do with the gaps (- and .) of aligned sequences: strip them, or refuse the input.
    empty
        The same as --invalid for contigs without a sequence alone; default: as --invalid.
    min_length
        Fewest bases of a contig that is translated.
    id_column
        Column of a CSV, TSV or Parquet file with the ids; default: id.
    sequence_column
        Column of such a file with the sequences; default: sequence.
    code
        NCBI's number of the genetic code.
    precision
        auto is FP16 on GPUs and FP32 on CPUs; fp32 is the original's arithmetic.
    batch_tokens
        Tokens in a batch; default: about a second's work of the workers, less for small inputs.
    """

    list_: Annotated[tuple[str, ...], Parameter(name="--from", negative="")] = ()
    sequence: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    invalid: Invalid = "error"
    unknown: Unknown | None = None
    gaps: Gaps = "error"
    empty: Empty | None = None
    min_length: PositiveInt = 1
    id_column: str | None = None
    sequence_column: str | None = None
    code: PositiveInt = 1
    precision: PrecisionChoice = "auto"
    batch_tokens: PositiveInt | None = None

    def reading(self, models: Sequence[str]) -> Reading:
        """Return these options as those of a submission."""
        return Reading(
            list_=self.list_,
            sequence=self.sequence,
            model=tuple(models),
            precision=self.precision,
            invalid=self.invalid,
            unknown=self.unknown,
            gaps=self.gaps,
            empty=self.empty,
            min_length=self.min_length,
            id_column=self.id_column,
            sequence_column=self.sequence_column,
            batch_tokens=self.batch_tokens,
        )


#: The options if none is given.
USUAL_CONTIGS = Contigs()
