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
from common.text import counted
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

    def add_list(self, list_file: str) -> None:
        """Find the files that a file names, one in each line.

        Raises:
            InputError: it cannot be read, or one of its lines names nothing that can be read.
        """
        for line, name in names_in(list_file):
            try:
                self.add([name])
            except InputError as error:
                raise InputError(
                    f"--from {list_file}, line {line}: {error}", path=error.path
                ) from error

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
        deeper = f"For deeper folders give a pattern, as '{name.rstrip('/')}/**/*.fa'"
        return self._readable(name, [str(path) for path in files], "folder has no file", deeper)

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
        if not bucket:
            raise InputError(f"{name} names no bucket: write s3://bucket/key.", path=name)
        pattern = PATTERN.search(key)
        if pattern is None and not name.endswith("/"):
            return [Source(name)]
        prefix = key[: pattern.start()] if pattern else f"{key}/".lstrip("/")
        objects = S3Store(bucket, "").listed(prefix)
        keys = sorted(found.key for found in objects)
        if pattern is None:
            inside = [k for k in keys if "/" not in k.removeprefix(prefix)]
            deeper = f"For deeper objects give a pattern, as '{name.rstrip('/')}/*.fa'"
            urls = [f"s3://{bucket}/{k}" for k in inside]
            return self._readable(name, urls, "prefix has no object", deeper)
        matching = [k for k in keys if fnmatchcase(k, key)]
        if not matching:
            raise InputError(
                f"{name}: no object matches this pattern (looked at "
                f"{counted(len(keys), 'object')} below s3://{bucket}/{prefix}).",
                path=name,
            )
        return [Source(f"s3://{bucket}/{k}") for k in matching]

    def _readable(self, name: str, files: list[str], none: str, deeper: str) -> list[Source]:
        """Return those of a folder's files that have the suffix of one that can be read."""
        kept = [file for file in files if is_readable(file)]
        if not kept:
            others = f", only {counted(len(files), 'other')}" if files else ""
            raise InputError(
                f"{name}: the {none} to read{others}. Looked for {SUFFIXES_SHOWN}. {deeper}; it "
                "also finds other suffixes.",
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
                    f"{source.shown} is given twice: name it once. A pattern, a folder or a list "
                    "may name it too.",
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


def names_in(list_file: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each line of a file; blank lines and # comments are left out.

    Raises:
        InputError: it cannot be read, or names nothing.
    """
    path = user_path(list_file)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise InputError(f"--from {list_file}: cannot be read ({reason}).", path=path) from error
    lines = enumerate((line.strip() for line in text.splitlines()), start=1)
    found = [(line, name) for line, name in lines if name and not name.startswith("#")]
    if not found:
        raise InputError(
            f"--from {list_file}: it names no file. Write a path into each line.", path=path
        )
    yield from found
