"""Finding the files that a user names: paths, folders, patterns, prefixes in buckets, and lists.

Files come in the order in which they were named; those of a folder, of a pattern and of a prefix
are sorted by name.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from common.errors import InputError
from common.paths import user_path
from common.store.bucket import S3Store, split_s3_url
from producer.input.source import COMPRESSED_SUFFIXES, FASTA_SUFFIXES, FASTQ_SUFFIXES, Source

#: Signs of a pattern.
PATTERN = re.compile(r"[*?\[]")

#: Suffixes of the files that are read in a folder, in small letters, and as a message names them.
#: Tables and alignments are not among them: they often lie beside the sequences.
READ_SUFFIXES = FASTA_SUFFIXES + FASTQ_SUFFIXES
SUFFIXES_SHOWN = f"{', '.join(READ_SUFFIXES)}, each also with {', '.join(COMPRESSED_SUFFIXES)}"


@dataclass
class Found:
    """The sources that were found, in order."""

    sources: list[Source] = field(default_factory=list)
    #: Files of folders and prefixes that are not read, for their suffixes.
    left_out: list[str] = field(default_factory=list)

    def add(self, names: Iterable[str]) -> None:
        """Find the files of some names.

        Raises:
            InputError: one names nothing that can be read, or a file is named twice.
        """
        for name in names:
            self.sources += self._expanded(name)

    def _expanded(self, name: str) -> list[Source]:
        if name.startswith("s3://"):
            return self._in_bucket(name)
        if name.startswith("~"):
            name = str(user_path(name))
        if name != "-" and Path(name).is_dir():
            return self._in_folder(name)
        if PATTERN.search(name) and not os.path.lexists(name):
            return self._matching(name)
        source = Source(name)
        source.check()
        return [source]

    def _in_folder(self, name: str) -> list[Source]:
        folder = Path(name)
        try:
            files = sorted(path for path in folder.iterdir() if path.is_file())
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror}).", path=name) from error
        return self._readable(name, [str(path) for path in files], "For deeper folders give a ")

    def _matching(self, name: str) -> list[Source]:
        # Path.glob would change the names: it takes ./ away.
        found = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207
        if not found:
            raise InputError(
                f"{name}: no file matches this pattern (looked in {Path.cwd()}).", path=name
            )
        return [Source(path) for path in found]

    def _in_bucket(self, name: str) -> list[Source]:
        bucket, key = split_s3_url(name)
        pattern = PATTERN.search(key)
        if pattern is None and not name.endswith("/"):
            return [Source(name)]
        prefix = key[: pattern.start()] if pattern else f"{key}/".lstrip("/")
        objects = S3Store(bucket, "").listed(prefix)
        keys = sorted(found.key for found in objects)
        if pattern is None:
            inside = [k for k in keys if "/" not in k.removeprefix(prefix)]
            return self._readable(name, [f"s3://{bucket}/{k}" for k in inside], "For all give ")
        matching = [k for k in keys if fnmatchcase(k, key)]
        if not matching:
            raise InputError(
                f"{name}: none of {len(keys):,} objects below s3://{bucket}/{prefix} matches this "
                "pattern.",
                path=name,
            )
        return [Source(f"s3://{bucket}/{k}") for k in matching]

    def _readable(self, name: str, files: list[str], deeper: str) -> list[Source]:
        """Return those of a folder's files that have the suffix of one that can be read."""
        kept = [file for file in files if is_readable(file)]
        if not kept:
            where = name.rstrip("/")
            others = f", only {len(files):,} others" if files else ""
            raise InputError(
                f"{name}: the folder has no file to read{others}. Looked for {SUFFIXES_SHOWN}. "
                f"{deeper}pattern, as '{where}/**/*.fa'; it also finds files with other suffixes.",
                path=name,
            )
        self.left_out += [file for file in files if file not in set(kept) and not is_hidden(file)]
        return [Source(file) for file in kept]

    def check_once(self) -> None:
        """Check that no source is named twice.

        Raises:
            InputError: one is.
        """
        seen: set[str] = set()
        for source in self.sources:
            real = source.name if source.is_s3 else os.path.realpath(source.name)
            if real in seen:
                raise InputError(
                    f"{source.shown} is given twice: name it once, or check what a pattern or a "
                    "folder has of it too.",
                    path=source.path,
                )
            seen.add(real)


def is_readable(file: str) -> bool:
    """Return whether a folder's file is read, by its suffix."""
    if is_hidden(file):
        return False
    name = file.lower()
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.endswith(READ_SUFFIXES)


def is_hidden(file: str) -> bool:
    return file.rpartition("/")[2].startswith(".")


def names_in(list_file: str) -> Iterator[str]:
    """Yield the names in a file with one in each line; blank lines and # comments are left out.

    Raises:
        InputError: it cannot be read, or names nothing.
    """
    path = user_path(list_file)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise InputError(f"--from {list_file}: cannot be read ({reason}).", path=path) from error
    names = [line.strip() for line in text.splitlines()]
    found = [name for name in names if name and not name.startswith("#")]
    if not found:
        raise InputError(f"--from {list_file}: it names no file.", path=path)
    yield from found
