"""The store: a folder or a bucket, where an object is there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from common.errors import UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

PROBE_KEY = ".virnucpro-write-test"


class StoreError(UserError):
    """The store did not do what was asked, after its own retries."""


class ObjectNotFoundError(StoreError):
    """There is no object under this key."""


class Store(Protocol):
    """What the fleet needs of a folder or a bucket. Keys are ``/``-separated paths."""

    url: str
    #: Writes worth having under way at once: a disk needs few, a bucket far away many.
    parallel_writes: int

    def put(self, key: str, data: bytes) -> None:
        """Write a small object; ``sync`` makes it last."""

    def sync(self) -> None:
        """Return when all that was put would survive a power cut."""

    def get(self, key: str) -> bytes:
        """Read an object into memory."""

    def create(self, key: str) -> AbstractContextManager[Path]:
        """A path to write; on a clean exit it becomes the object, on an error it is gone."""

    def open(self, key: str) -> AbstractContextManager[Path]:
        """A path to read the object from."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys under ``prefix``, in order."""

    def delete(self, prefix: str) -> None:
        """Delete every object under ``prefix``."""


def open_store(url: str) -> Store:
    """Open the store that ``url`` names; nothing is read or written yet.

    Raises:
        UserError: a scheme other than ``file`` and ``s3``, or no bucket.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, parts.path.strip("/"))
    if url.startswith("file:///"):
        # Not parts.path: a folder's name may have a '#' or '?' in it.
        return FileStore(Path(url.removeprefix("file://")))
    if parts.scheme == "":
        return FileStore(Path(url).absolute())
    raise UserError(f"Store {url!r}: give a folder, file:///folder or s3://bucket/prefix.")


def check_writable(store: Store) -> None:
    """Write and delete a small object.

    Raises:
        StoreError: says what the store answered.
    """
    store.put(PROBE_KEY, b"")
    store.delete(PROBE_KEY)


class FileStore:
    """A folder. Objects are written beside their place and renamed into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parallel_writes = 2
        self.url = f"file://{root}"

    def put(self, key: str, data: bytes) -> None:
        with self._replacing(key) as path:
            path.write_bytes(data)

    def sync(self) -> None:
        # Once for all, not once for each: thousands of small objects make up a job's input.
        os.sync()

    def get(self, key: str) -> bytes:
        with self.open(key) as path, self._errors(f"read {key}"):
            return path.read_bytes()

    @contextmanager
    def create(self, key: str) -> Iterator[Path]:
        with self._replacing(key) as path:
            yield path
            sync_file(path)

    @contextmanager
    def _replacing(self, key: str) -> Iterator[Path]:
        target = self.root / key
        with self._errors(f"write {key}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            os.close(handle)
            path = Path(name)
            try:
                yield path
                path.chmod(0o644)
                path.replace(target)
            finally:
                path.unlink(missing_ok=True)

    @contextmanager
    def open(self, key: str) -> Iterator[Path]:
        path = self.root / key
        if not path.is_file():
            raise ObjectNotFoundError(f"Store {self.url} has no {key}.")
        yield path

    def keys(self, prefix: str) -> Iterator[str]:
        # A prefix ends at a folder or names one object: that is all the layout needs.
        start = self.root / prefix
        if start.is_file():
            yield prefix
        for path in sorted(start.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self.root).as_posix()

    def delete(self, prefix: str) -> None:
        start = self.root / prefix
        with self._errors(f"delete {prefix}"):
            if start.is_dir():
                shutil.rmtree(start)
            else:
                start.unlink(missing_ok=True)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"Store {self.url}: cannot {doing}: {error}.") from error


def sync_file(path: Path) -> None:
    """Have the file on disk before its name says that it is whole."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class S3Store:
    """A bucket, at any endpoint that boto3 is told of, with its checksums and retries on."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.parallel_writes = 8
        self.prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.client = s3_client()

    def put(self, key: str, data: bytes) -> None:
        with self._errors(f"write {key}"):
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def sync(self) -> None:
        """Nothing to do: an object is durable once S3 has answered."""

    def get(self, key: str) -> bytes:
        with self._errors(f"read {key}"):
            return self.read_stream(key)["Body"].read()

    def read_stream(self, key: str) -> "GetObjectOutputTypeDef":
        """Open an object for reading from its beginning: ``Body``, ``ETag``, ``ContentLength``."""
        with self._errors(f"read {key}"):
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)

    @contextmanager
    def create(self, key: str) -> Iterator[Path]:
        with (
            self._errors(f"write {key}"),
            tempfile.TemporaryDirectory(prefix="virnucpro-") as folder,
        ):
            path = Path(folder, "object")
            yield path
            # Several parts at once from 8 MB on; the object is there when the last part is.
            self.client.upload_file(str(path), self.bucket, self.prefix + key)

    @contextmanager
    def open(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
            path = Path(folder, "object")
            with self._errors(f"read {key}"):
                self.client.download_file(self.bucket, self.prefix + key, str(path))
            yield path

    def keys(self, prefix: str) -> Iterator[str]:
        with self._errors(f"list {prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(self.prefix)

    def delete(self, prefix: str) -> None:
        for key in list(self.keys(prefix)):
            with self._errors(f"delete {key}"):
                self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code in {"NoSuchKey", "404"}:
                raise ObjectNotFoundError(
                    f"Store {self.url}: cannot {doing}: not there."
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

#: What to do about an S3 error code.
S3_HINTS: dict[str, str] = {
    "InvalidAccessKeyId": WRONG_KEYS,
    "SignatureDoesNotMatch": WRONG_KEYS,
    "403": WRONG_KEYS,
    "AccessDenied": "These credentials may not do this here: check the bucket's policy.",
    "NoSuchBucket": "Create the bucket first, or check its name.",
}


def s3_client() -> "S3Client":
    import boto3
    from botocore.config import Config

    def client(style: Literal["auto", "path"]) -> "S3Client":
        return boto3.client(
            "s3",
            config=Config(
                retries={"mode": "standard", "total_max_attempts": 5},
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=32,
                s3={"addressing_style": style},
            ),
        )

    try:
        found = client("auto")
        is_amazon = "amazonaws.com" in found.meta.endpoint_url
        # Other servers rarely have a host name for every bucket.
        return found if is_amazon else client("path")
    except Exception as error:  # botocore checks its configuration here: profile, region, endpoint
        raise StoreError(f"S3 is not set up: {error}.") from error
