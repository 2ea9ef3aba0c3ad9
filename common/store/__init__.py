"""The store: a folder or a bucket, in which an object is either complete or absent."""

import re

from common.errors import UserError
from common.paths import user_path
from common.store.base import (
    NoStoreError,
    ObjectExistsError,
    ObjectNotFoundError,
    Store,
    StoreError,
)
from common.store.bucket import S3Store, split_s3_url
from common.store.folder import FileStore

__all__ = [
    "FileStore",
    "NoStoreError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "S3Store",
    "Store",
    "StoreError",
    "open_store",
]

#: A text that begins with a user and a password, and has no scheme.
LOGIN_ALONE = re.compile(r"[^/:@]+:[^/@]+@")


def open_store(url: str) -> Store:
    """Open the store that ``url`` names; nothing is read or written yet.

    Raises:
        UserError: the scheme is neither ``file`` nor ``s3``, or the bucket is missing.
    """
    scheme, separator, rest = url.partition("://")
    if LOGIN_ALONE.match(url):
        raise UserError(
            "The store begins with USER:PASSWORD@: give a folder, file:///folder or "
            "s3://bucket/prefix. Credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if not separator and not url.startswith(("file:", "s3:")):
        return FileStore(user_path(url).absolute())
    if scheme == "file" and rest.startswith(("/", "~")):
        return FileStore(user_path(rest))
    bucket, prefix = split_s3_url(url) if scheme == "s3" else ("", "")
    if bucket:
        return S3Store(bucket, prefix)
    shown = f"***@{url.rpartition('@')[2]}" if "@" in url else url  # it may have a password
    raise UserError(f"Store {shown!r}: give a folder, file:///folder or s3://bucket/prefix.")
