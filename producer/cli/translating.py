"""The options of a translation, and the requests that the options of a command ask for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, NamedTuple, Unpack

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from common.alphabet import PROTEIN
from common.errors import UserError
from common.model_source import ModelSource
from common.rungs import PrecisionChoice
from producer.cli.options import to_path
from producer.cli.reading import Reading
from producer.input.sources import AnySource
from producer.submission.frames import Frames, write_frames, write_left_out
from producer.submission.request import Options, Request, family_of, reader_of
from producer.terminal.console import console
from producer.translation.options import Translation

#: The model whose letters contigs are checked for: DNA, with IUPAC's codes for several bases.
MODEL_OF_CONTIGS = "random:dnabert_s"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Translating:
    """Whether records are contigs that are translated, and how.

    Parameters
    ----------
    translate
        What is embedded of contigs: of each chunk, the frames without a stop (six-frame), as
        VirNucPro does; every stretch between two stops (orfs); or the records as they are (none).
        Models of proteins get the amino acids, models of DNA the bases that they come from.
    chunk
        Bases of a chunk at most; default: 500, and of orfs none: contigs are translated whole.
    code
        NCBI's number of the genetic code.
    min_frame
        Fewest amino acids of a frame; default: 1, of orfs 30.
    left_out
        Table to write of the contigs that have chunks without a frame, and how many; an earlier
        one is replaced.
    """

    translate: Literal["six-frame", "orfs", "none"] = "none"
    chunk: PositiveInt | None = None
    code: PositiveInt | None = None
    min_frame: PositiveInt | None = None
    left_out: Annotated[Path | None, Parameter(converter=to_path)] = None

    def translation(self) -> Translation | None:
        """Return the translation; None if there is none.

        Raises:
            UserError: there is none, but an option of one; or an option is bad.
        """
        if self.translate == "none":
            for name in ("chunk", "code", "min_frame", "left_out"):
                if getattr(self, name) is not None:
                    option = name.replace("_", "-")
                    raise UserError(f"--{option} is of a translation: add --translate six-frame.")
            return None
        return Translation.of(
            self.translate, chunk=self.chunk, code=self.code or 1, min_frame=self.min_frame
        )


#: The options if none is given.
UNTRANSLATED = Translating()


class Asked(NamedTuple):
    """What a command is to submit."""

    requests: list[Request]  # one for each model
    frames: Frames | None  # that they are of, if contigs are translated
    source: AnySource  # as the user named it
    precision: PrecisionChoice  # of workers that are started for it


@contextmanager
def requests_of(
    reading: Reading, translating: Translating, source: AnySource, **more: Unpack[Options]
) -> Iterator[Asked]:
    """Yield a request for each model; frames are in temporary files until the end of the block.

    Raises:
        InputError: a contig is bad, or none has a frame.
        UserError: options exclude each other, or a model does not support them.
    """
    models, translation = reading.models, translating.translation()
    if translation is None:
        if len(models) > 1 and any(part.is_stream for part in source.parts):
            raise UserError(
                "Several models read the input one after the other: name a file, not a stream."
            )
        requests = [reading.request(source, model, **more) for model in models]
        yield Asked(requests, None, source, reading.precision)
        return
    with TemporaryDirectory(prefix="virnucpro-") as folder:
        frames = translated(reading, translation, source, Path(folder))
        if translating.left_out is not None:
            write_left_out(frames, translating.left_out)
        if not frames.report.frames:
            raise no_frames(frames)
        requests = requests_of_frames(reading, frames, **more)
        yield Asked(requests, frames, source, reading.precision)


def translated(
    reading: Reading, translation: Translation, source: AnySource, folder: Path
) -> Frames:
    """Write the frames of a source into a folder, and show how far it is."""
    request = reading.request(source, MODEL_OF_CONTIGS, include="mean", layers=-1, long="window")
    total = 0
    with console.status("Translating the input …") as status:

        def show(contigs: int) -> None:
            nonlocal total
            total += contigs
            status.update(f"Translating the input: {total:,} contigs …")

        return write_frames(reader_of(request), translation, folder, show)


def requests_of_frames(reading: Reading, frames: Frames, **more: Unpack[Options]) -> list[Request]:
    """Return a request for each model that embeds frames."""
    requests = []
    for model in reading.models:
        alphabet = family_of(ModelSource.parse(model)).alphabet
        options: Options = {
            # What contigs may be was checked already.
            "molecule": "protein" if alphabet is PROTEIN else "dna",
            "min_length": 1,
            "invalid": "error",
            "unknown": None,
            "empty": None,
            **more,
        }
        requests.append(reading.request(frames.source(alphabet), model, **options))
    return requests


def no_frames(frames: Frames) -> UserError:
    """Return the error of an input of which nothing is left to embed."""
    report = frames.report
    return UserError(
        f"{frames.input}: none of the {report.chunks:,} chunks of {report.contigs:,} contigs has a "
        "frame without a stop: there is nothing to embed. Try --translate orfs, or --chunk 300."
    )
