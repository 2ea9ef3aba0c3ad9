"""A store in a bucket, on Amazon's S3 or any other."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from common.store.base import (
    MARKER,
    ObjectNotFoundError,
    StoreError,
    check_key,
    no_store,
)
from common.store.ranges import BLOCK_BYTES, RangedFile
from common.store.s3 import CONNECTIONS
from common.store.s3_errors import code_of, is_unknown_request
from common.store.s3_files import S3Files

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef


#: Objects deleted in one request; S3 allows no more.
DELETED_TOGETHER = 1000


#: The form of a bucket's name; boto3 would refuse any other, and quote it.
BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")


def split_s3_url(url: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``. A key may contain any character.

    Raises:
        StoreError: no bucket can have this name, which is not quoted: it may have a password.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if bucket and not BUCKET.fullmatch(bucket):
        raise StoreError(
            "A bucket's name has letters, digits, '.', '-' and '_': write s3://bucket/key. "
            "Credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    return bucket, key.strip("/")


class S3Store(S3Files):
    """A bucket at any endpoint that boto3 is configured for, with its checksums and retries on.

    A server may lack conditional writes, multipart uploads, ranges and deletions of many objects at
    once: the store then does without, after the first refusal.

    If the server stops answering, every call raises ``StoreError`` in less than two minutes;
    ``create`` in less than four, since it cleans up, and ``open`` in less than six, since it asks
    for the size and then twice for the object.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        super().__init__(bucket, prefix)
        self.parallel_writes = 8
        self.parallel_reads = CONNECTIONS
        self._has_batches = True  # deletions of many objects

    def check_writable(self) -> None:
        self.check_writable_at(".virnucpro-write-test", "write to it")
        self.put(MARKER, b"")

    def check_exists(self) -> None:
        if not self._has(MARKER):
            self._adopt()

    def _adopt(self) -> None:
        """Mark a store that an earlier version made."""
        if not any(
            folder == "validations" or self._has(f"{folder}/manifest.json")
            for folder in self._folders()
        ):
            raise no_store(self.url, "Is that the right bucket and prefix?")
        with suppress(StoreError):  # it may be for reading only
            self.put(MARKER, b"")

    def _has(self, key: str) -> bool:
        try:
            self.read_stream(key)["Body"].close()
        except ObjectNotFoundError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        with self.errors(f"write {key}"):
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def sync(self) -> None:
        """Do nothing: an object is durable once S3 has answered."""

    def get(self, key: str) -> bytes:
        with self.errors(f"read {key}"):
            return self.read_stream(key)["Body"].read()

    def read_stream(self, key: str) -> "GetObjectOutputTypeDef":
        """Open an object for reading from its beginning: ``Body``, ``ETag``, ``ContentLength``."""
        with self.errors(f"read {key}"):
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)

    @contextmanager
    def open_ranges(self, key: str) -> Iterator[BinaryIO]:
        tail = self._read_range(key, f"-{BLOCK_BYTES}")
        if tail is None:
            with self.open(key) as path, path.open("rb") as whole:
                yield whole
            return

        def fetch(start: int, end: int) -> bytes:
            part = self._read_range(key, f"{start}-{end - 1}")
            if part is None or part.etag != tail.etag:
                raise StoreError(f"Store {self.url}: cannot read {key}: it was replaced meanwhile.")
            return part.data

        with RangedFile(tail.size, tail.data, fetch) as file:
            yield cast(BinaryIO, file)

    def _read_range(self, key: str, bytes_: str) -> "Range | None":
        """Return a range of an object; None if the server sends only whole objects."""
        from botocore.exceptions import ClientError

        with self.errors(f"read {key}"):
            try:
                answer = self.client.get_object(
                    Bucket=self.bucket,
                    Key=self.prefix + key,
                    Range=f"bytes={bytes_}",
                )
                if "ContentRange" not in answer:
                    answer["Body"].close()
                    return None
                _, _, size = answer["ContentRange"].partition("/")
                return Range(answer["Body"].read(), int(size), answer["ETag"])
            except ClientError as error:
                if code_of(error) != "InvalidRange":
                    raise
                return Range(b"", 0, "")  # an empty object has no bytes

    def keys(self, prefix: str) -> Iterator[str]:
        return self._unless_empty(self._keys(prefix))

    def sizes(self, prefix: str) -> Iterator[int]:
        return (found.size for found in self.listed(prefix))

    def folders(self) -> Iterator[str]:
        return self._unless_empty(self._folders())

    def _unless_empty(self, listed: Iterator[str]) -> Iterator[str]:
        """Yield a listing, which may be empty only in a store."""
        is_empty = True
        for name in listed:
            is_empty = False
            if name != MARKER:
                yield name
        if is_empty:
            self.check_exists()

    def _keys(self, prefix: str) -> Iterator[str]:
        for page in self._pages(f"list {prefix}", self.prefix + prefix):
            for item in page.get("Contents", []):
                # One that ends so is a folder, as consoles make them.
                if not item["Key"].endswith("/"):
                    yield item["Key"].removeprefix(self.prefix)

    def listed(self, prefix: str) -> "Iterator[Stored]":
        """Yield the objects whose keys begin with a prefix, of a bucket that need be no store."""
        for page in self._pages(f"list {prefix}".rstrip(), self.prefix + prefix):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    key = item["Key"].removeprefix(self.prefix)
                    yield Stored(key, item["Size"], item.get("ETag", "").strip('"'))

    def _folders(self) -> Iterator[str]:
        for page in self._pages("list its folders", self.prefix, Delimiter="/"):
            for folder in page.get("CommonPrefixes", []):
                if name := folder["Prefix"].removeprefix(self.prefix).rstrip("/"):
                    yield name

    def _pages(
        self, doing: str, prefix: str, **options: Any
    ) -> "Iterator[ListObjectsV2OutputTypeDef]":
        paginator = self.client.get_paginator("list_objects_v2")
        with self.errors(doing):
            for page in paginator.paginate(Bucket=self.bucket, Prefix=prefix, **options):
                yield page
                if page.get("IsTruncated") and not page.get("NextContinuationToken"):
                    # boto3 would end the listing here.
                    raise StoreError(
                        f"Store {self.url} at {self.client.meta.endpoint_url}: cannot {doing}: the "
                        "server does not say how a long listing goes on (ListObjectsV2)."
                    )

    def delete(self, prefix: str, check: Callable[[], None] = lambda: None) -> None:
        check_key(self.url, prefix)
        listed = (
            item["Key"]
            for page in self._pages(f"list {prefix}", self.prefix + prefix)
            for item in page.get("Contents", [])
        )
        self._delete_all(listed, check, f"delete {prefix}")

    def delete_keys(self, keys: Iterable[str], check: Callable[[], None] = lambda: None) -> None:
        def checked() -> Iterator[str]:
            for key in keys:
                check_key(self.url, key)
                yield self.prefix + key

        self._delete_all(checked(), check, "delete objects")

    def _delete_all(self, keys: Iterator[str], check: Callable[[], None], doing: str) -> None:
        while together := list(islice(keys, DELETED_TOGETHER)):
            check()
            with self.errors(doing):
                for key in self._delete_together(together):
                    self.client.delete_object(Bucket=self.bucket, Key=key)

    def _delete_together(self, keys: list[str]) -> list[str]:
        """Delete objects in one request; return those to delete one by one, or to hear why not."""
        from botocore.exceptions import ClientError

        if not self._has_batches or len(keys) == 1:
            return keys
        try:
            answer = self.client.delete_objects(
                Bucket=self.bucket,
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
            )
        except ClientError as error:
            if not is_unknown_request(error):
                raise
            self._has_batches = False
            return keys
        return [failed["Key"] for failed in answer.get("Errors", [])]


class Stored(NamedTuple):
    """An object, as a listing has it."""

    key: str
    size: int
    etag: str


class Range(NamedTuple):
    """A range of an object's bytes."""

    data: bytes
    size: int  # of the whole object
    etag: str
