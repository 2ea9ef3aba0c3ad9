"""The folder of a prediction's files: what it may replace, and that it is whole or not there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from common.errors import UserError
from producer.submission.frames import Frames
from producer.virnucpro.prediction import CONTIGS, HIGHEST, RESULTS

PROTEINS, DNA, REPORT, RECORD = "frames.faa", "frames.fna", "report.html", "prediction.json"

#: All files of a prediction; the last one says what it was made with.
FILES = (RESULTS, HIGHEST, CONTIGS, PROTEINS, DNA, REPORT, RECORD)

#: The file beside which a run on this machine keeps what is computed, until its end.
WORKING = "features.h5"

#: The beginning of the name of a folder in it that is being written.
PARTS = ".parts-"


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Check, before any work, that a folder may have a prediction's files.

    Raises:
        UserError: it has other files, or cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder (-o), such as calls/.", path=folder)
    if not folder.parent.is_dir():
        raise UserError(
            f"{folder}: name a folder in one that exists, or make that: mkdir -p {folder.parent}",
            path=folder,
        )
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    ours = {*FILES, f"{WORKING}.parts"}
    others = sorted(name for name in found - ours if not name.startswith(PARTS))
    if found & {*FILES} and RECORD not in found:
        others = sorted(found & {*FILES})
    if others and not overwrite:
        raise UserError(
            f"{folder} has other files, such as {others[0]}: name another folder (-o), or write "
            "beside them with --overwrite.",
            path=folder,
        )


@contextmanager
def written_into(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, whose files go into a folder at the end of the block.

    Those of an earlier prediction are replaced, and nothing else.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        temporary = Path(mkdtemp(prefix=PARTS, dir=folder))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.", path=folder) from error
    try:
        yield temporary
        (folder / RECORD).unlink(missing_ok=True)  # until all files are there
        for name in FILES:
            if (temporary / name).exists():
                (temporary / name).replace(folder / name)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}.", path=folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def keep_frames(folder: Path, frames: Frames) -> None:
    """Give the files of frames the names that a prediction has for them."""
    frames.proteins.replace(folder / PROTEINS)
    frames.dna.replace(folder / DNA)
