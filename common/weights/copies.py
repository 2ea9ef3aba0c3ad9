"""A copy of weights in a folder: complete, or not there at all.

Several processes may want the same copy, also on hosts that share the folder. One of them downloads
it, the others wait for its lock. A record beside the files is written last and says what they are;
files without it are what a killed download left.
"""

import errno
import fcntl
import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import UserError
from common.model_digest import model_digest
from common.model_files import BESIDE, weights_in
from common.paths import is_not_writable
from common.store.folder import sync_file

log = logging.getLogger(__name__)

#: Files beside the weights: the record, the lock, and folders of downloads under way.
RECORD, LOCK, UNFINISHED = ".virnucpro-weights.json", ".virnucpro-lock", ".virnucpro-part-"

#: Error numbers of a file system without locks. There several processes may download, each into a
#: folder of its own; what they put in place is the same.
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

#: What a record has while files are put in place: nothing has this digest.
OPEN = {"content": ""}


class Record(BaseModel):
    """The record of a complete copy."""

    model_config = ConfigDict(frozen=True)

    source: str  # ModelSource.text
    version: str  # a commit, or the digest of a listing
    sizes: Mapping[str, int]  # of the files, by name
    content: str  # their model_digest; empty while they are put in place

    @property
    def names(self) -> list[str]:
        return sorted(self.sizes)


def read_record(folder: Path) -> Record | None:
    """Return a folder's record; None if it has none that can be read."""
    try:
        return Record.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def complete_copy(folder: Path, source: str, version: str | None = None) -> Record | None:
    """Return the record of a folder that has a complete copy; None if it has none.

    Args:
        source: of the weights.
        version: of the source; None: any.
    """
    record = read_record(folder)
    if record is None or record.source != source or version not in (None, record.version):
        return None
    files = [folder / name for name in record.names]
    try:
        sizes = {file.name: file.stat().st_size for file in files}
        return record if sizes == record.sizes and model_digest(files) == record.content else None
    except (OSError, UserError):  # another process may be replacing them
        return None


def make_copy(folder: Path, source: str, version: str, download: Callable[[Path], None]) -> Record:
    """Put a copy into a folder, unless a complete one is there; return its record.

    Args:
        folder: made if it is not there.
        download: writes the files into an empty folder.

    Raises:
        UserError: the folder cannot be written, or has other files in the same places.
    """
    if found := complete_copy(folder, source, version):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as alone:
            if found := complete_copy(folder, source, version):
                return found
            check_replaceable(folder, source)
            return download_into(folder, source, version, download, alone=alone)
    except OSError as error:
        if not is_not_writable(error):  # a download that failed
            raise
        raise UserError(
            f"The weights of {source} cannot be written to {folder} ({error.strerror or error}): "
            "give this user a folder with enough space. XDG_CACHE_HOME names the cache, and worker "
            "download --to another folder."
        ) from error


def check_replaceable(folder: Path, source: str) -> None:
    """Check that a folder has no model but this one.

    Raises:
        UserError: it has, which is not replaced.
    """
    record = read_record(folder)
    if record is not None and record.source != source:
        raise UserError(f"{folder} has the weights of {record.source}: name another folder.")
    names = sorted(path.name for path in folder.iterdir())
    model = {*weights_in(names), *(name for name in names if name in BESIDE)}
    check_ours(folder, model, record)


def check_ours(folder: Path, names: Iterable[str], record: Record | None) -> None:
    """Check that those of some files that are in a folder were downloaded here.

    Raises:
        UserError: one was not.
    """
    known = record.sizes if record is not None else {}
    there = (name for name in names if name not in known and (folder / name).exists())
    if (other := min(there, default=None)) is not None:
        raise UserError(
            f"{folder} has a file {other} that was not downloaded by this program: name an empty "
            "folder."
        )


def download_into(
    folder: Path,
    source: str,
    version: str,
    download: Callable[[Path], None],
    *,
    alone: bool,
) -> Record:
    """Download beside the files of a folder, then replace them; the caller holds its lock."""
    if alone:
        for leftover in folder.glob(f"{UNFINISHED}*"):  # of processes that were killed
            shutil.rmtree(leftover, ignore_errors=True)
    part = folder / f"{UNFINISHED}{uuid.uuid4().hex}"
    part.mkdir()
    try:
        download(part)
        files = sorted(path for path in part.iterdir() if path.is_file())
        check_ours(folder, (file.name for file in files), read_record(folder))
        content = model_digest(files)
        assert content is not None, "nothing was downloaded"
        sizes = {file.name: file.stat().st_size for file in files}
        for file in files:
            sync_file(file)
        record = Record(source=source, version=version, sizes=sizes, content=content)
        put_in_place(folder, part, record)
        return record
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put_in_place(folder: Path, part: Path, record: Record) -> None:
    """Move downloaded files to their places, so that at no moment a mixture can be loaded.

    Without ``config.json`` a folder cannot be loaded: it goes first and comes last.
    """
    before = read_record(folder)
    old = before.sizes if before is not None else {}
    # Whatever is in the folder if this process is killed here may be replaced by the next one.
    write_record(part, folder, record.model_copy(update={"sizes": {**old, **record.sizes}, **OPEN}))
    (folder / "config.json").unlink(missing_ok=True)
    for name in old:
        (folder / name).unlink(missing_ok=True)
    for name in sorted(record.sizes, key=lambda name: name == "config.json"):
        (part / name).replace(folder / name)
    write_record(part, folder, record)


def write_record(part: Path, folder: Path, record: Record) -> None:
    written = part / RECORD
    written.write_text(record.model_dump_json(indent=1) + "\n")
    sync_file(written)
    written.replace(folder / RECORD)
    sync_file(folder)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock in the block, which ends with this process at the latest.

    Yields whether no other process downloads into this folder: false where there are no locks.
    """
    with (folder / LOCK).open("ab") as lock:
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("Another process downloads to %s: waiting for it.", folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            yield False
            return
        yield True
