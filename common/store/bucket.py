"""A store in a bucket, on Amazon's S3 or any other."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from common.backoff import backoff
from common.store.base import ObjectExistsError, ObjectNotFoundError, StoreError, check_key
from common.store.ranges import BLOCK_BYTES, RangedFile
from common.store.s3 import CONNECTIONS, refuse_overwrites, s3_client, transfers

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef


#: Retries of a write that conflicted with another write to the same key.
CONFLICT_RETRIES = 4

#: Objects deleted in one request; S3 allows no more.
DELETED_TOGETHER = 1000


def split_s3_url(url: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``. A key may contain any character."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key.strip("/")


class S3Store:
    """A bucket at any endpoint that boto3 is configured for, with its checksums and retries on.

    If the server stops answering, every call raises ``StoreError`` in less than two minutes;
    ``create`` in less than four, since it cleans up, and ``open`` in less than six, since it asks
    for the size and then twice for the object.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.parallel_writes = 8
        self.parallel_reads = CONNECTIONS
        self.prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.client = s3_client()
        self._exclusive_client = refuse_overwrites(s3_client())
        self._has_conditions = True

    def put(self, key: str, data: bytes) -> None:
        with self._errors(f"write {key}"):
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def sync(self) -> None:
        """Do nothing: an object is durable once S3 has answered."""

    def get(self, key: str) -> bytes:
        with self._errors(f"read {key}"):
            return self.read_stream(key)["Body"].read()

    def read_stream(self, key: str) -> "GetObjectOutputTypeDef":
        """Open an object for reading from its beginning: ``Body``, ``ETag``, ``ContentLength``."""
        with self._errors(f"read {key}"):
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)

    @contextmanager
    def create(self, key: str, *, replace: bool = True) -> Iterator[Path]:
        with (
            self._errors(f"write {key}"),
            tempfile.TemporaryDirectory(prefix="virnucpro-") as folder,
        ):
            path = Path(folder, "object")
            yield path
            if replace or not self._has_conditions:
                self._upload(self.client, path, key)
            else:
                self._upload_unless_exists(path, key)

    def _upload(self, client: "S3Client", path: Path, key: str) -> None:
        from boto3.s3.transfer import create_transfer_manager

        # Sends several parts at once; the object exists when the last part has arrived. Not
        # upload_file, whose exceptions hide S3's error codes.
        with create_transfer_manager(client, transfers()) as manager:
            manager.upload(str(path), self.bucket, self.prefix + key).result()

    def _upload_unless_exists(self, path: Path, key: str) -> None:
        from botocore.exceptions import ClientError

        pauses = backoff(CONFLICT_RETRIES, first=0.5, longest=4)
        while True:
            try:
                return self._upload(self._exclusive_client, path, key)
            except ClientError as error:
                match code_of(error):
                    case "PreconditionFailed":
                        raise ObjectExistsError(f"Store {self.url} has {key} already.") from error
                    case "NotImplemented":
                        self._has_conditions = False
                        return self._upload(self.client, path, key)
                    case "ConditionalRequestConflict" if (pause := next(pauses, None)) is not None:
                        time.sleep(pause)
                    case _:
                        raise

    @contextmanager
    def open(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
            path = Path(folder, "object")
            with self._errors(f"read {key}"):
                self.client.download_file(
                    self.bucket, self.prefix + key, str(path), Config=transfers()
                )
            yield path

    @contextmanager
    def open_ranges(self, key: str) -> Iterator[BinaryIO]:
        head = self._read_range(key, 0, BLOCK_BYTES)

        def fetch(start: int, end: int) -> bytes:
            part = self._read_range(key, start, end)
            if part.etag != head.etag:
                raise StoreError(f"Store {self.url}: cannot read {key}: it was replaced meanwhile.")
            return part.data

        with RangedFile(head.size, head.data, fetch) as file:
            yield cast(BinaryIO, file)

    def _read_range(self, key: str, start: int, end: int) -> "Range":
        from botocore.exceptions import ClientError

        with self._errors(f"read {key}"):
            try:
                answer = self.client.get_object(
                    Bucket=self.bucket,
                    Key=self.prefix + key,
                    Range=f"bytes={start}-{end - 1}",
                )
                _, _, size = answer["ContentRange"].partition("/")
                return Range(answer["Body"].read(), int(size), answer["ETag"])
            except ClientError as error:
                if code_of(error) != "InvalidRange":
                    raise
                return Range(b"", 0, "")  # an empty object has no first byte

    def keys(self, prefix: str) -> Iterator[str]:
        with self._errors(f"list {prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(self.prefix)

    def folders(self) -> Iterator[str]:
        with self._errors("list its folders"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"
            )
            for page in pages:
                for folder in page.get("CommonPrefixes", []):
                    yield folder["Prefix"].removeprefix(self.prefix).rstrip("/")

    def delete(self, prefix: str) -> None:
        check_key(self.url, prefix)
        keys = self.keys(prefix)
        while together := list(islice(keys, DELETED_TOGETHER)):
            with self._errors(f"delete {prefix}"):
                self.client.delete_objects(
                    Bucket=self.bucket,
                    Delete={
                        "Objects": [{"Key": self.prefix + key} for key in together],
                        "Quiet": True,
                    },
                )

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = code_of(error)
            if code in {"NoSuchKey", "404"}:
                raise ObjectNotFoundError(
                    f"Store {self.url}: cannot {doing}: no such object."
                ) from error
            raise StoreError(
                f"Store {self.url} at {self.client.meta.endpoint_url}: cannot {doing}: {error}. "
                f"{S3_HINTS.get(code, '')}".rstrip()
            ) from error
        except (BotoCoreError, Boto3Error, OSError) as error:
            raise StoreError(
                f"Store {self.url} at {self.client.meta.endpoint_url}: cannot {doing}: {error}."
            ) from error


WRONG_KEYS = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."

#: Advice for each S3 error code.
S3_HINTS: dict[str, str] = {
    "InvalidAccessKeyId": WRONG_KEYS,
    "SignatureDoesNotMatch": WRONG_KEYS,
    "403": WRONG_KEYS,
    "AccessDenied": "These credentials do not allow it: check the bucket's policy.",
    "NoSuchBucket": "Create the bucket first, or check its name.",
}


class Range(NamedTuple):
    """A range of an object's bytes."""

    data: bytes
    size: int  # of the whole object
    etag: str


def code_of(error: "ClientError") -> str:
    return str(error.response["Error"]["Code"])
