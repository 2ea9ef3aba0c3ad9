"""``producer translate``."""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from common.errors import UserError
from common.paths import check_has_folder
from producer.cli.contigs import USUAL_CONTIGS, Contigs
from producer.cli.options import Flag, to_path
from producer.cli.reading import Inputs, check_options
from producer.cli.translating import MODEL_OF_CONTIGS, translated
from producer.output.partial import partial_of
from producer.submission.frames import CONTIG_COLUMNS, Frames
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
        check_place(place, overwrite=overwrite)
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


def check_place(place: Path, *, overwrite: bool) -> None:
    """Check, before any work, that a file may be written.

    Raises:
        UserError: there is one, or its folder is not there.
    """
    check_has_folder(place)
    if place.is_dir():
        raise UserError(f"{place} is a folder: name a file.", path=place)
    if place.exists() and not overwrite:
        raise UserError(
            f"{place} exists: name another file, or replace it with --overwrite.", path=place
        )


def write_files(frames: Frames, output: Path, dna: Path | None, left_out: Path | None) -> None:
    """Copy the frames to the files of a user, each of which is whole or not there.

    Raises:
        UserError: a file cannot be written.
    """
    if left_out is not None:
        keep_left_out(frames.contigs)
    if output == STDOUT:
        sys.stdout.write(frames.proteins.read_text("utf-8"))
    copies = ((frames.proteins, output), (frames.dna, dna), (frames.contigs, left_out))
    for source, place in copies:
        if place is None or place == STDOUT:
            continue
        partial = partial_of(place)
        with ExitStack() as stack:
            stack.callback(partial.unlink, missing_ok=True)
            try:
                shutil.copyfile(source, partial)
                partial.replace(place)
            except OSError as error:
                raise UserError(
                    f"{place} cannot be written: {error.strerror}.", path=place
                ) from error


def keep_left_out(table: Path) -> None:
    """Leave only the contigs in a table of which a chunk has no frame."""
    kept = table.with_suffix(".left_out")
    with table.open(encoding="utf-8") as lines, kept.open("w", encoding="utf-8") as file:
        file.write(next(lines))
        column = CONTIG_COLUMNS.index("chunks_without_frame")
        file.writelines(line for line in lines if line.rstrip("\n").split("\t")[column] != "0")
    kept.replace(table)
