"""Whole files as objects of a bucket: uploads and downloads, in parts if they are large."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.backoff import backoff
from common.store.base import ObjectExistsError, StoreError
from common.store.s3 import on_condition, s3_client, transfers
from common.store.s3_errors import UNKNOWN_REQUEST, code_of, is_unknown_request, store_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Retries of a write that conflicted with another write to the same key.
CONFLICT_RETRIES = 4


class S3Files:
    """The files below a prefix of a bucket.

    A server may lack conditional writes, and uploads and downloads in parts: they are done without,
    after the first refusal.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.label = f"Store {self.url}"  # in errors
        self.client = s3_client()
        self._has_conditions = True
        self._has_parts = True  # multipart uploads, and downloads by range

    @cached_property
    def _exclusive_client(self) -> "S3Client":
        """The client for writes that replace nothing. Readers need none, which takes a while."""
        return on_condition(s3_client(), IfNoneMatch="*")

    def check_writable_at(self, key: str, doing: str) -> None:
        """Check that an object may be written under a key, where the server has uploads in parts.

        Raises:
            StoreError: it may not: this cannot be done.
        """
        from botocore.exceptions import ClientError

        place: dict[str, Any] = {"Bucket": self.bucket, "Key": self.prefix + key}
        with self.errors(doing):
            try:
                # Until it is completed, an upload in parts is no object: nothing stays behind.
                upload = self.client.create_multipart_upload(**place)
            except ClientError as error:
                if not is_unknown_request(error):
                    raise
                self._has_parts = False
            else:
                with suppress(ClientError):  # a right of its own
                    self.client.abort_multipart_upload(**place, UploadId=upload["UploadId"])

    @contextmanager
    def create(self, key: str, *, replace: bool = True) -> Iterator[Path]:
        with (
            self.errors(f"write {key}"),
            tempfile.TemporaryDirectory(prefix="virnucpro-") as folder,
        ):
            path = Path(folder, "object")
            yield path
            if replace or not self._has_conditions:
                self._upload(self.client, path, key)
            else:
                self.upload_on_condition(self._exclusive_client, path, key)

    def _upload(
        self, client: "S3Client", path: Path, key: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        from boto3.s3.transfer import create_transfer_manager
        from botocore.exceptions import ClientError

        try:
            # Sends several parts at once; the object exists when the last part has arrived. Not
            # upload_file, whose exceptions hide S3's error codes.
            with create_transfer_manager(client, transfers(in_parts=self._has_parts)) as manager:
                extra = {"Metadata": dict(metadata)} if metadata else {}
                manager.upload(str(path), self.bucket, self.prefix + key, extra).result()
        except ClientError as error:
            in_parts = error.operation_name == "CreateMultipartUpload"
            if not in_parts or not is_unknown_request(error):
                raise
            self._has_parts = False
            self._upload(client, path, key, metadata)

    def upload_on_condition(
        self, client: "S3Client", path: Path, key: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Upload a file on the condition that a client adds, if the server knows conditions.

        Raises:
            ObjectExistsError: the condition does not hold. It may be for this upload itself: the
                client repeats a write whose answer was lost.
        """
        from botocore.exceptions import ClientError

        pauses = backoff(CONFLICT_RETRIES, first=0.5, longest=4)
        while True:
            try:
                return self._upload(client, path, key, metadata)
            except ClientError as error:
                match code_of(error):
                    case "PreconditionFailed":
                        raise ObjectExistsError(f"Store {self.url} has {key} already.") from error
                    case code if code in UNKNOWN_REQUEST:
                        # Fails too if it was something else.
                        self._upload(self.client, path, key, metadata)
                        self._has_conditions = False
                        return None
                    case "ConditionalRequestConflict" if (pause := next(pauses, None)) is not None:
                        time.sleep(pause)
                    case _:
                        raise

    @contextmanager
    def open(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
            path = Path(folder, "object")
            self.download(key, path)
            yield path

    def download(self, key: str, path: Path) -> None:
        """Download an object to a file."""
        with self.errors(f"read {key}"):
            if self._download(key, path) != path.stat().st_size:
                self._has_parts = False  # each part was the whole object
                if self._download(key, path) != path.stat().st_size:
                    raise StoreError(f"Store {self.url}: {key} did not come whole. Try again.")

    def _download(self, key: str, path: Path) -> int:
        """Download an object, in parts if it is large; return its size."""
        from boto3.s3.transfer import create_transfer_manager

        with create_transfer_manager(self.client, transfers(in_parts=self._has_parts)) as manager:
            download = manager.download(self.bucket, self.prefix + key, str(path))
            download.result()
            return int(download.meta.size)

    def errors(self, doing: str) -> AbstractContextManager[None]:
        return store_errors(f"{self.label} at {self.client.meta.endpoint_url}", doing)
