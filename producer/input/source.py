"""The source of FASTA: a file, standard input or S3, plain or compressed."""

import io
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from xopen import xopen

from common.errors import InputError
from common.store.bucket import S3Store, split_s3_url
from producer.input.content_hash import content_hash

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

#: Estimated bytes of FASTA per byte of a compressed file.
COMPRESSION_RATIO = 3
FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fna", ".fas", ".pep")
FASTQ_SUFFIXES = (".fastq", ".fq")
OTHER_SUFFIXES = (".csv", ".tsv", ".parquet", ".bam", ".cram")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class Source:
    """An input as the user names it: a path, ``-`` or ``s3://bucket/key``."""

    name: str
    #: The input's name in messages and in the manifest; empty: ``name``.
    label: str = ""

    #: Files beside it in a folder that was named, which are not read.
    left_out: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple["Source"]:
        """The sources that are read one after the other: this one alone."""
        return (self,)

    @property
    def is_stdin(self) -> bool:
        return self.name == "-"

    @property
    def is_s3(self) -> bool:
        return self.name.startswith("s3://")

    @property
    def is_stream(self) -> bool:
        """Whether the input can be read only once: standard input, a named pipe."""
        return self.is_stdin or not (self.is_s3 or Path(self.name).is_file())

    @property
    def shown(self) -> str:
        """The input's name in messages."""
        return self.label or ("standard input" if self.is_stdin else self.name)

    @property
    def path(self) -> str | None:
        """The input's name in errors; None for records of a program, which have no file."""
        return None if self.label else self.shown

    @property
    def stem(self) -> str:
        """The file's name without folder and suffixes, for the job's name."""
        if self.is_stdin:
            return "stdin"
        name = Path(self.name).name
        for suffixes in (COMPRESSED_SUFFIXES, FASTA_SUFFIXES + FASTQ_SUFFIXES + OTHER_SUFFIXES):
            name = next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)
        return name

    def check(self) -> None:
        """Check early that there is a file to read.

        Raises:
            InputError: there is no such file.
        """
        path = Path(self.name)
        if self.is_stdin and sys.stdin is None:
            raise InputError("Standard input is closed: name a file, or pipe one in.")
        if self.is_stdin or self.is_s3:
            return
        if not path.exists():
            raise InputError(f"{self.name}: no such file (looked in {Path.cwd()}).", path=path)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Yield a file with the bytes of the FASTA, which are decompressed as they are read."""
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
            # By file descriptor: xopen would go by a name's suffix rather than by the content.
            return os.fdopen(os.open(self.name, os.O_RDONLY), "rb")
        except OSError as error:
            raise InputError(
                f"{self.name}: cannot be read ({error.strerror}).", path=self.name
            ) from error

    def _s3_object(self) -> "GetObjectOutputTypeDef":
        bucket, key = split_s3_url(self.name)
        return S3Store(bucket, "").read_stream(key)

    @cached_property
    def fingerprint(self) -> str:
        """A text that is equal for equal content; for a stream it is always new."""
        return self.read_fingerprint()

    def read_fingerprint(self) -> str:
        """Return the ``fingerprint``, of what can be read now.

        Raises:
            InputError: the file cannot be opened.
        """
        if self.is_stream:
            return uuid.uuid4().hex
        if self.is_s3:
            answer = self._s3_object()
            answer["Body"].close()
            return f"{self.name} {answer['ETag']} {answer['ContentLength']}"
        with self._raw() as file:
            return content_hash(cast(io.BufferedReader, file))

    def estimated_bytes(self) -> int | None:
        """Estimate the bytes of FASTA; None if that is unknown before the end."""
        path = Path(self.name)
        if not path.is_file():
            return None
        ratio = COMPRESSION_RATIO if self.name.endswith(COMPRESSED_SUFFIXES) else 1
        return path.stat().st_size * ratio
