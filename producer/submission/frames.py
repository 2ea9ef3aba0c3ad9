"""The frames of an input's contigs, written to files that jobs are submitted of."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.alphabet import PROTEIN, Alphabet
from common.job.joint import FramesReport
from producer.input.reader import Reader
from producer.input.source import Source
from producer.output.partial import written
from producer.translation.fasta import write_dna, write_proteins
from producer.translation.frames import Contig, translate
from producer.translation.options import Translation

#: The files of an input's frames.
FILES = ("proteins", "dna", "contigs")

#: The columns of the table of contigs.
CONTIG_COLUMNS = ("contig", *Contig._fields[1:])


@dataclass(frozen=True)
class Frames:
    """The frames of an input as files, and the counts of the translation."""

    proteins: Path  # FASTA
    dna: Path  # FASTA with the same ids in the same order
    contigs: Path  # a table with a line for each contig
    report: FramesReport
    duplicate_ids: int  # contigs with the id of an earlier one
    input: str  # the name of what was read

    def source(self, alphabet: Alphabet) -> Source:
        """Return the frames as the input of a job: proteins, or the DNA that they come from."""
        path = self.proteins if alphabet is PROTEIN else self.dna
        return Source(str(path), label=f"the frames of {self.input}")


class Counts(NamedTuple):
    """Sums over contigs."""

    contigs: int = 0
    bases: int = 0
    chunks: int = 0
    frames: int = 0
    chunks_without_frame: int = 0
    contigs_without_frame: int = 0

    def plus(self, contigs: list[Contig]) -> "Counts":
        """Return the sums with more contigs."""
        return Counts(
            self.contigs + len(contigs),
            self.bases + sum(contig.length for contig in contigs),
            self.chunks + sum(contig.chunks for contig in contigs),
            self.frames + sum(contig.frames for contig in contigs),
            self.chunks_without_frame + sum(contig.chunks_without_frame for contig in contigs),
            self.contigs_without_frame + sum(contig.frames == 0 for contig in contigs),
        )


def write_frames(
    reader: Reader,
    translation: Translation,
    folder: Path,
    on_contigs: Callable[[int], None] = lambda _contigs: None,
) -> Frames:
    """Translate an input and write its frames into a folder.

    Args:
        reader: of the contigs.
        folder: which is there. The files have the name of the input.
        on_contigs: called with the number of contigs of each block that was translated.

    Raises:
        InputError: a contig is bad.
        OSError: a file cannot be written.
    """
    source = reader.source
    paths = [folder / f"{source.stem}{suffix}" for suffix in (".faa", ".fna", ".tsv")]
    counts = Counts()
    with ExitStack() as stack:
        proteins, dna, table = [
            stack.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in paths
        ]
        table.write("\t".join(CONTIG_COLUMNS) + "\n")
        for frames, contigs in translate(reader, translation):
            write_proteins(proteins, frames)
            write_dna(dna, frames)
            table.writelines("\t".join(map(str, contig)) + "\n" for contig in contigs)
            counts = counts.plus(contigs)
            on_contigs(len(contigs))
    report = FramesReport(
        kind=translation.kind,
        chunk=translation.chunk,
        code=translation.code,
        min_frame=translation.min_frame,
        **counts._asdict(),
    )
    return Frames(
        proteins=paths[0],
        dna=paths[1],
        contigs=paths[2],
        report=report,
        duplicate_ids=reader.duplicate_ids(),
        input=source.shown,
    )


def write_left_out(frames: Frames, place: Path) -> None:
    """Write a table of the contigs that have chunks without a frame.

    Raises:
        UserError: it cannot be written.
    """
    column = CONTIG_COLUMNS.index("chunks_without_frame")
    with (
        written(place) as path,
        frames.contigs.open(encoding="utf-8") as lines,
        path.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(next(lines))
        file.writelines(line for line in lines if line.rstrip("\n").split("\t")[column] != "0")


def joined(several: Sequence[Frames], folder: Path) -> Frames:
    """Return the frames of several inputs as those of one, whose files are in a folder."""
    paths = [folder / getattr(several[0], name).name for name in FILES]
    for name, path in zip(FILES, paths, strict=True):
        with path.open("wb") as out:
            for number, frames in enumerate(several):
                with getattr(frames, name).open("rb") as file:
                    if name == "contigs" and number:
                        file.readline()  # the names of the columns
                    shutil.copyfileobj(file, out)
    counts = {name: sum(getattr(f.report, name) for f in several) for name in Counts._fields}
    return Frames(
        proteins=paths[0],
        dna=paths[1],
        contigs=paths[2],
        report=several[0].report.model_copy(update=counts),
        duplicate_ids=sum(frames.duplicate_ids for frames in several),
        input=" and ".join(frames.input for frames in several),
    )
