"""Where FASTA comes from: a file, standard input or S3, plain or compressed."""

import hashlib
import io
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

from xopen import xopen

from common.errors import UserError
from common.store import S3Store

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

#: Bytes of FASTA in a byte of a compressed file, for estimates of the work ahead.
COMPRESSION_RATIO = 3
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class Source:
    """An input as the user names it: a path, ``-`` or ``s3://bucket/key``."""

    name: str

    @property
    def is_stdin(self) -> bool:
        return self.name == "-"

    @property
    def is_s3(self) -> bool:
        return self.name.startswith("s3://")

    @property
    def stem(self) -> str:
        """The file's name without folder and suffixes, for the job's name."""
        return "stdin" if self.is_stdin else Path(urlsplit(self.name).path).name.split(".")[0]

    def check(self) -> None:
        """Fail early if there is nothing to read.

        Raises:
            UserError: no such file, or a folder.
        """
        path = Path(self.name)
        if self.is_stdin or self.is_s3:
            return
        if path.is_dir():
            raise UserError(f"{self.name} is a folder; give a FASTA file.")
        if not path.exists():
            raise UserError(f"{self.name}: no such file (looked in {Path.cwd()}).")

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
            return Path(self.name).open("rb")
        except OSError as error:
            raise UserError(f"{self.name}: cannot be read ({error.strerror}).") from error

    def _s3_object(self) -> "GetObjectOutputTypeDef":
        parts = urlsplit(self.name)
        return S3Store(parts.netloc, "").read_stream(parts.path.lstrip("/"))

    def fingerprint(self) -> str:
        """Names the content: equal for equal bytes. Standard input is new every time."""
        if self.is_stdin:
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
        if self.is_stdin:
            return None
        seen = 0
        with self.open() as file:
            for line_number, line in enumerate(file, start=1):
                seen += line.startswith(b">")
                if seen == number:
                    return line_number
        return None
