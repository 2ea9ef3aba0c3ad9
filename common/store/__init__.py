"""The store: a folder or a bucket, in which an object is either complete or absent."""

from common.errors import UserError
from common.paths import user_path
from common.store.base import ObjectExistsError, ObjectNotFoundError, Store, StoreError
from common.store.bucket import S3Store, split_s3_url
from common.store.folder import FileStore

__all__ = [
    "FileStore",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "S3Store",
    "Store",
    "StoreError",
    "open_store",
]


def open_store(url: str) -> Store:
    """Open the store that ``url`` names; nothing is read or written yet.

    Raises:
        UserError: the scheme is neither ``file`` nor ``s3``, or the bucket is missing.
    """
    scheme, separator, rest = url.partition("://")
    if not separator and not url.startswith(("file:", "s3:")):
        return FileStore(user_path(url).absolute())
    if scheme == "file" and rest.startswith(("/", "~")):
        return FileStore(user_path(rest))
    bucket, prefix = split_s3_url(url) if scheme == "s3" else ("", "")
    if bucket:
        return S3Store(bucket, prefix)
    raise UserError(f"Store {url!r}: give a folder, file:///folder or s3://bucket/prefix.")
