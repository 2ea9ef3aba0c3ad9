"""One object in a bucket outside of a store, such as a file that a user asks for."""

import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from common.store.base import ObjectExistsError, ObjectNotFoundError, StoreError
from common.store.bucket import S3Store, split_s3_url
from common.store.s3 import on_condition, s3_client

#: The name under which an object's metadata tell which upload it is of.
UPLOAD = "virnucpro-upload"


class S3Object:
    """An object that is complete or absent, and replaced only if it is the one that is expected."""

    def __init__(self, url: str) -> None:
        """Name an object, ``s3://bucket/key``; nothing is read or written yet.

        Raises:
            StoreError: no object can have this name, or S3 is not set up.
        """
        bucket, key = split_s3_url(url)
        folder, _, self.name = key.rpartition("/")
        if not bucket or not key or url.endswith("/"):
            raise StoreError(f"{url}: name an object, such as s3://bucket/folder/embeddings.h5.")
        self.url = f"s3://{bucket}/{key}"
        self._store = S3Store(bucket, folder)
        self._store.label = f"{self._store.url}/"

    def etag(self) -> str | None:
        """Return what changes whenever the object is written; None if there is none."""
        try:
            answer = self._store.read_stream(self.name)
        except ObjectNotFoundError:
            return None
        answer["Body"].close()
        return answer["ETag"]

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Yield a file that fetches only the parts that are read."""
        return self._store.open_ranges(self.name)

    def check_writable(self) -> None:
        """Find out early that the object cannot be written, without a trace of it.

        Raises:
            StoreError: it cannot, with the server's answer.
        """
        self._store.check_writable_at(self.name, f"write {self.name}")

    def write(self, path: Path, expected: str | None) -> None:
        """Write a file as the object, in parts if it is large.

        Args:
            expected: the ETag of the object that is replaced; None: there is none.

        Raises:
            ObjectExistsError: there is another object by now. A server that knows no conditional
                writes replaces it.
        """
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        client, token = on_condition(s3_client(), **condition), uuid.uuid4().hex
        try:
            with self._store.errors(f"write {self.name}"):
                self._store.upload_on_condition(client, path, self.name, {UPLOAD: token})
        except (ObjectExistsError, ObjectNotFoundError) as error:
            if not self._is_of(token):
                raise ObjectExistsError(
                    f"{self.url} was written or deleted by another process meanwhile, and is kept "
                    "as it is."
                ) from error

    def _is_of(self, token: str) -> bool:
        """Return whether the object is that of an upload, whose answer was lost."""
        try:
            answer = self._store.read_stream(self.name)
        except ObjectNotFoundError:
            return False
        answer["Body"].close()
        return answer["Metadata"].get(UPLOAD) == token
