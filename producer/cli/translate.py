"""``producer translate``."""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from common.paths import check_new_file
from producer.cli.contigs import USUAL_CONTIGS, Contigs
from producer.cli.options import Flag, to_path
from producer.cli.reading import Inputs, check_options
from producer.cli.translating import MODEL_OF_CONTIGS, translated
from producer.output.partial import written
from producer.submission.frames import Frames, write_left_out
from producer.terminal.console import say, warn
from producer.terminal.frames import report_frames
from producer.translation.options import Translation

#: Standard output, as the place of the proteins.
STDOUT = Path("-")


def translate(
    *inputs: Inputs,
    output: Annotated[Path, Parameter(alias="-o", converter=to_path, allow_leading_hyphen=True)],
    dna: Annotated[Path | None, Parameter(converter=to_path)] = None,
    left_out: Annotated[Path | None, Parameter(converter=to_path)] = None,
    contigs: Contigs = USUAL_CONTIGS,
    kind: Annotated[Literal["six-frame", "orfs"], Parameter(name="--translate")] = "six-frame",
    chunk: PositiveInt | None = None,
    min_frame: PositiveInt | None = None,
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Translate contigs, and write the frames that submit and predict would embed.

    Needs no fleet and no model. The options of batches and of precision have no effect here.

    Parameters
    ----------
    inputs
        Contigs, or reads: files, folders, patterns in quotes, - or s3://bucket/key, as submit has
        them.
    output
        FASTA file for the proteins; - for standard output.
    dna
        FASTA file for the DNA that they come from, with the same ids in the same order.
    left_out
        Table for the contigs that have chunks without a frame, and how many.
    kind
        The frames without a stop of each chunk (six-frame), as VirNucPro has them, or every stretch
        between two stops (orfs).
    chunk
        Bases of a chunk at most; default: 500, and of orfs none: contigs are translated whole.
    min_frame
        Fewest amino acids of a frame; default: 1, of orfs 30.
    overwrite
        Replace files.
    """
    check_options(inputs, "translate")
    places = [place for place in (output, dna, left_out) if place not in (None, STDOUT)]
    for place in places:
        check_new_file(place, overwrite=overwrite)
    translation = Translation.of(kind, chunk=chunk, code=contigs.code, min_frame=min_frame)
    reading = contigs.reading([MODEL_OF_CONTIGS])
    with reading.source(inputs) as source, TemporaryDirectory(prefix="virnucpro-") as folder:
        frames = translated(reading, translation, source, Path(folder))
        write_files(frames, output, dna, left_out)
    report_frames(frames)
    if not frames.report.frames:
        warn("No contig has a frame: the files are empty.")
    for place in places:
        say(f"Wrote {place}.")


def write_files(frames: Frames, output: Path, dna: Path | None, left_out: Path | None) -> None:
    """Write the files of a user, each of which is whole or not there.

    Raises:
        UserError: a file cannot be written.
    """
    if output == STDOUT:
        sys.stdout.write(frames.proteins.read_text("utf-8"))
    else:
        write_copy(frames.proteins, output)
    if dna is not None:
        write_copy(frames.dna, dna)
    if left_out is not None:
        write_left_out(frames, left_out)


def write_copy(source: Path, place: Path) -> None:
    with written(place) as path:
        shutil.copyfile(source, path)
