"""Weights that are objects in a bucket: their listing, by which they are known, and its digest."""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.errors import UserError
from common.model_files import SINGLE_FILES, chosen
from common.store import ObjectNotFoundError, S3Store, StoreError
from common.store.bucket import split_s3_url

if TYPE_CHECKING:
    from common.store.bucket import Stored

SCHEME = "s3://"

#: S3 error codes, and names of botocore's exceptions, of a machine that may not see a bucket.
NOT_ALLOWED = {"AccessDenied", "403", "AllAccessDisabled", "InvalidAccessKeyId"}
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError"}


class NotAllowedError(StoreError):
    """This machine has no credentials for the bucket, or they do not suffice."""


@dataclass(frozen=True)
class Listing:
    """The objects of a model, which another set of weights would not have."""

    url: str
    files: "tuple[Stored, ...]"
    bucket: S3Store = field(compare=False, repr=False)

    @property
    def digest(self) -> str:
        """16 hex digits of the objects' names, sizes and ETags."""
        text = "".join(f"{file.key}\0{file.size}\0{file.etag}\0" for file in self.files)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def normal_url(url: str) -> str:
    """Return the one spelling of the URL of weights.

    Raises:
        UserError: it names no bucket, or has credentials.
    """
    bucket, key = split_s3_url(f"{SCHEME}{url[len(SCHEME) :]}")
    if not bucket or not key:
        shown = f"***@{url.rpartition('@')[2]}" if "@" in url else url  # it may have a password
        raise UserError(f"Model {shown!r}: write s3://bucket/folder, or s3://bucket/file.pt.")
    return f"{SCHEME}{bucket}/{key}"


def bucket_of(url: str) -> S3Store:
    return S3Store(*split_s3_url(url))


def split_file(url: str) -> tuple[str, str]:
    """Return the URL of a folder, and the name of the one file that is meant; "" for all."""
    folder, _, name = url.rpartition("/")
    return (folder, name) if name.endswith(SINGLE_FILES) else (url, "")


def look(url: str) -> Listing:
    """Return the listing of a model's objects.

    Raises:
        NotAllowedError: this machine may not list them.
        UserError: they are not a model, or the server does not answer.
    """
    folder, name = split_file(url)
    return listing_of(url, bucket_of(folder), name)


def listing_of(url: str, bucket: S3Store, name: str) -> Listing:
    """Return the listing of one file, or of all that belong to a model."""
    try:
        # What lies deeper is of another model.
        found = {file.key: file for file in bucket.listed(name) if "/" not in file.key}
    except StoreError as error:
        if is_not_allowed(error):
            raise NotAllowedError(str(error)) from error
        raise
    names = [name] if name in found else []
    if not name:
        names = chosen(found, url)
    elif not names:
        raise UserError(f"{url}: no such object with weights.")
    return Listing(url, tuple(found[name] for name in names), bucket)


def look_if_allowed(url: str) -> Listing | None:
    """Return the listing of a model's objects; None if only workers may list them."""
    try:
        return look(url)
    except NotAllowedError:
        return None


def config_of(url: str) -> bytes | None:
    """Return a model's ``config.json``; None if it has none, or only workers may read it."""
    folder, name = split_file(url)
    if name:
        return None
    try:
        return bucket_of(folder).get("config.json")
    except ObjectNotFoundError:
        return None
    except StoreError as error:
        if is_not_allowed(error):
            return None
        raise


def is_not_allowed(error: StoreError) -> bool:
    cause = error.__cause__
    answer = getattr(cause, "response", {}) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    return code in NOT_ALLOWED or type(cause).__name__ in NO_CREDENTIALS
