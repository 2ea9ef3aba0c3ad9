"""A store in a bucket, on Amazon's S3 or any other."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.store.base import ObjectNotFoundError, StoreError

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef


#: Of a large write: each is a request, and a prefix takes 3,500 of them a second. With boto3's own
#: 8 MiB, shards with vectors of residues would reach that at 27 GPUs (``docs/scaling.md``).
PART_BYTES = 64 * 2**20

#: S3 deletes at most this many objects in one request.
DELETED_TOGETHER = 1000


def split_s3_url(url: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``. A key may have any character in it."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key.strip("/")


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
            # Several parts at once; the object is there when the last part is.
            self.client.upload_file(str(path), self.bucket, self.prefix + key, Config=parts())

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


def parts() -> "TransferConfig":
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)


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
