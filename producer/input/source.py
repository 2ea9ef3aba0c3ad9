"""Where FASTA comes from: a file, standard input or S3, plain or compressed."""

import hashlib
import io
import itertools
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from xopen import xopen

from common.errors import InputError
from common.store.bucket import S3Store, split_s3_url

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

#: Bytes of FASTA in a byte of a compressed file, for estimates of the work ahead.
COMPRESSION_RATIO = 3
FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fna", ".fas", ".pep")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class Source:
    """An input as the user names it: a path, ``-`` or ``s3://bucket/key``."""

    name: str
    #: What messages and the manifest call the input; empty: as ``name`` says.
    label: str = ""

    @property
    def is_stdin(self) -> bool:
        return self.name == "-"

    @property
    def is_s3(self) -> bool:
        return self.name.startswith("s3://")

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once: standard input, a named pipe."""
        return self.is_stdin or not (self.is_s3 or Path(self.name).is_file())

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.label or ("standard input" if self.is_stdin else self.name)

    @property
    def stem(self) -> str:
        """The file's name without folder and suffixes, for the job's name."""
        if self.is_stdin:
            return "stdin"
        name = Path(self.name).name
        for suffixes in (COMPRESSED_SUFFIXES, FASTA_SUFFIXES):
            name = next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)
        return name

    def check(self) -> None:
        """Fail early if there is nothing to read.

        Raises:
            InputError: no such file, or a folder.
        """
        path = Path(self.name)
        if self.is_stdin or self.is_s3:
            return
        if path.is_dir():
            raise InputError(f"{self.name} is a folder; give a FASTA file.", path=path)
        if not path.exists():
            raise InputError(f"{self.name}: no such file (looked in {Path.cwd()}).", path=path)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The bytes of the FASTA, decompressed as they are read."""
        raw = self._raw()
        try:
            with xopen(raw, "rb", threads=0) as file:
                yield file
        finally:
            if not self.is_stdin:
                raw.close()

    def _raw(self) -> BinaryIO:
        if self.is_stdin:
            return sys.stdin.buffer
        if self.is_s3:
            body = self._s3_object()["Body"]
            return cast(BinaryIO, io.BufferedReader(body, 1 << 20))
        try:
            # By number: xopen believes a name's suffix before it looks at the content.
            return os.fdopen(os.open(self.name, os.O_RDONLY), "rb")
        except OSError as error:
            raise InputError(
                f"{self.name}: cannot be read ({error.strerror}).", path=self.name
            ) from error

    def _s3_object(self) -> "GetObjectOutputTypeDef":
        bucket, key = split_s3_url(self.name)
        return S3Store(bucket, "").read_stream(key)

    def fingerprint(self) -> str:
        """Names the content: equal for equal bytes. A stream is new every time."""
        if self.is_stream:
            return uuid.uuid4().hex
        if self.is_s3:
            answer = self._s3_object()
            answer["Body"].close()
            return f"{self.name} {answer['ETag']} {answer['ContentLength']}"
        with self._raw() as file:
            return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()

    def estimated_bytes(self) -> int | None:
        """About how many bytes of FASTA there are; None if nobody knows before the end."""
        path = Path(self.name)
        if not path.is_file():
            return None
        ratio = COMPRESSION_RATIO if self.name.endswith(COMPRESSED_SUFFIXES) else 1
        return path.stat().st_size * ratio

    def line_of_record(self, number: int) -> int | None:
        """The line, from 1, at which record ``number`` (from 1) starts; None for a stream."""
        headers = itertools.count(1)
        return self._line_where(
            lambda line: line.lstrip().startswith(b">") and next(headers) == number
        )

    def line_beyond_utf8(self) -> int | None:
        """The first line, from 1, that is not UTF-8; None for a stream."""
        return self._line_where(lambda line: "\ufffd" in line.decode(errors="replace"))

    def _line_where(self, is_it: Callable[[bytes], bool]) -> int | None:
        if self.is_stream:
            return None
        with self.open() as file:
            return next((number for number, line in enumerate(file, start=1) if is_it(line)), None)
