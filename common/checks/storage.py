"""Checks of the fleet's store, on an object of their own that is deleted again."""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.checks.check import Check, Outcome, failed, ok, warning
from common.checks.rights import Role
from common.store import FileStore, ObjectNotFoundError, S3Store, StoreError, open_store
from common.store.base import MARKER
from common.store.s3_errors import UNKNOWN_REQUEST, code_of
from common.text import without_login

#: What the object holds.
DATA = b"virnucpro"

#: S3's error codes of a write that is refused since the object is there.
IS_THERE = {"PreconditionFailed", "412"}

WITHOUT_CONDITIONS = (
    "this server ignores or refuses conditional writes (If-None-Match): of two writes of one "
    "object at the same moment the later counts"
)


#: The checks whose failure is of no harm to a worker, which neither lists nor deletes.
NOT_NEEDED: dict[Role, set[str]] = {
    "producer": set(),
    "worker": {"store list", "store delete", "store conditional put"},
}


def check_store(url: str, role: Role) -> Iterator[Check]:
    """Look at a store: that it is there, and what may be done in it."""
    store = open_store(url)
    for check in check_bucket(store) if isinstance(store, S3Store) else check_folder(store):
        if check.outcome is Outcome.FAILED and check.name in NOT_NEEDED[role]:
            yield warning(check.name, f"{check.text} (a {role} does without)")
        else:
            yield check


# --- a folder -----------------------------------------------------------------------------------


def check_folder(store: Any) -> Iterator[Check]:
    assert isinstance(store, FileStore)
    root = store.root
    if not root.is_dir():
        yield failed(
            "store",
            f"{store.url} is not there",
            "mount it, or, if it is to be new, leave it to the first producer submit",
        )
        return
    yield marked(store, (root / MARKER).exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".virnucpro-doctor-", dir=root) as folder:
            yield from write_in(Path(folder))
    except OSError as error:
        yield failed(
            "store write",
            f"this user cannot write to {root} ({error.strerror})",
            f"give it to user {os.getuid()}, or mount it for writing",
        )
        yield readable(root)


def marked(store: "FileStore | S3Store", is_marked: bool) -> Check:
    """Return whether a place is a store already."""
    where = store.url
    if isinstance(store, S3Store):
        where = f"{where} at {without_login(store.client.meta.endpoint_url)}"
    if is_marked:
        return ok("store", where)
    return warning("store", f"{where} is no store yet", "the first producer submit makes it one")


def write_in(folder: Path) -> Iterator[Check]:
    one, other = folder / "object", folder / "other"
    one.write_bytes(DATA)
    yield ok("store write", f"a file of user {os.getuid()}")
    same = one.read_bytes() == DATA
    names = [path.name for path in folder.iterdir()]
    yield ok("store read", "as it was written") if same else failed("store read", "other bytes")
    listed = names == ["object"]
    yield ok("store list", "complete") if listed else failed("store list", f"it has {names}")
    try:
        other.hardlink_to(one)
    except OSError as error:
        yield warning(
            "store conditional put",
            f"no hard links here ({error.strerror}): of two writes of one object at the same "
            "moment the later counts",
        )
    else:
        yield ok("store conditional put", "by hard links")
    one.unlink()
    yield ok("store delete", "done")


def readable(root: Path) -> Check:
    try:
        os.listdir(root)  # noqa: PTH208 (only whether it can be done)
    except OSError as error:
        return failed("store list", f"this user cannot list {root} ({error.strerror})")
    return ok("store list", "done")


# --- a bucket -----------------------------------------------------------------------------------


def check_bucket(store: S3Store) -> Iterator[Check]:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = store.bucket, f"{store.prefix}.virnucpro-doctor-{uuid.uuid4().hex}"
    client = store.client
    try:
        is_marked = bool(client.head_object(Bucket=bucket, Key=f"{store.prefix}{MARKER}"))
    except ClientError:
        is_marked = False
    except BotoCoreError as error:
        yield failed("store", f"{store.url}: {without_login(str(error))}", ADVICE_NO_ANSWER)
        return
    yield marked(store, is_marked)
    yield credentials()
    there = False

    def put() -> str:
        nonlocal there
        client.put_object(Bucket=bucket, Key=key, Body=DATA)
        there = True
        return "an object"

    def get() -> str:
        try:
            data = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if there or code_of(error) not in {"NoSuchKey", "404"}:
                raise
            return "it may be read"
        if data != DATA:
            raise StoreError("other bytes than were written")
        return "as it was written"

    def list_() -> str:
        answer = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        if there and not answer.get("Contents"):
            raise ObjectNotFoundError("an object that was just written is not listed")
        return "as it was written" if there else "it may be listed"

    def parts() -> str:
        upload = client.create_multipart_upload(Bucket=bucket, Key=f"{key}-parts")
        client.abort_multipart_upload(
            Bucket=bucket, Key=f"{key}-parts", UploadId=upload["UploadId"]
        )
        return "begun and given up"

    def condition() -> str:
        try:
            client.put_object(Bucket=bucket, Key=key, Body=DATA, IfNoneMatch="*")
        except ClientError as error:
            if code_of(error) in IS_THERE:
                return "an object that is there is not replaced"
            raise
        raise NotConditionalError

    def delete() -> str:
        client.delete_object(Bucket=bucket, Key=key)
        return "done"

    try:
        yield tried("store write", put, "s3:PutObject")
        yield tried("store read", get, "s3:GetObject")
        yield tried("store list", list_, "s3:ListBucket")
        yield tried("store multipart", parts, "s3:PutObject and s3:AbortMultipartUpload")
        if there:
            yield tried("store conditional put", condition, "s3:PutObject")
        else:
            yield warning("store conditional put", "not looked at, since nothing may be written")
    finally:
        yield tried("store delete", delete, "s3:DeleteObject")


ADVICE_NO_ANSWER = (
    "set AWS_ENDPOINT_URL_S3 to the server, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE or a role to let this process in"
)


class NotConditionalError(Exception):
    """A condition of a write was ignored."""


def tried(name: str, act: Callable[[], str], right: str) -> Check:
    """Do something in a bucket; return what came of it.

    Args:
        right: the right that it needs, as policies of S3 name it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ok(name, act())
    except NotConditionalError:
        return warning(name, WITHOUT_CONDITIONS)
    except ClientError as error:
        code = code_of(error)
        if code in UNKNOWN_REQUEST and name == "store conditional put":
            return warning(name, WITHOUT_CONDITIONS)
        if code in UNKNOWN_REQUEST and name == "store multipart":
            return warning(name, f"this server has none ({code}): large shards are sent whole")
        message = error.response["Error"].get("Message", "").rstrip(".") or str(error)
        if code in {"NoSuchBucket", "404"}:
            return failed(name, f"{code}: {message}", "make the bucket, or correct its name")
        return failed(name, f"{code}: {message}", f"allow {right}, or look at the credentials")
    except (BotoCoreError, StoreError) as error:
        return failed(name, without_login(str(error).rstrip(".")), ADVICE_NO_ANSWER)


def credentials() -> Check:
    """Return where boto3 takes its credentials from, which are not shown."""
    import boto3

    found = boto3.Session().get_credentials()
    if found is None:
        return failed("store credentials", "none were found", ADVICE_NO_ANSWER)
    shown = PROVIDERS.get(found.method, found.method)
    return ok("store credentials", f"from {shown}")


#: boto3's names of the places of credentials, in words.
PROVIDERS = {
    "env": "the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the configuration file of AWS",
    "assume-role-with-web-identity": "a role by web identity (AWS_ROLE_ARN)",
    "assume-role": "a role (AssumeRole)",
    "sso": "single sign-on",
    "iam-role": "the role of this instance",
    "container-role": "the role of this container",
}
