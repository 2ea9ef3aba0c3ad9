"""The configuration of boto3: endpoint, timeouts, retries, part size."""

import os
import re
from typing import TYPE_CHECKING, Any, Literal

from common.store.base import StoreError

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client

#: Connections kept open to one server.
CONNECTIONS = 32

#: Bytes in one part of a large write. Each part is a request, and S3 allows a prefix 3,500 writes
#: per second: with boto3's default of 8 MiB, per-residue shards would reach that at 27 GPUs
#: (``docs/scaling.md``).
PART_BYTES = 64 * 2**20

#: Bytes in the largest object that S3 takes in one request.
WHOLE_BYTES = 5 * 2**30

#: Attempts at one request, the first included. With the timeouts below, an unanswered request ends
#: after 4 * (5 + 20) seconds and pauses of at most 1 + 2 + 4 seconds: in less than two minutes. A
#: healthy server answers a part of 64 MiB in a second or two.
ATTEMPTS = 4
CONNECT_SECONDS = 5
READ_SECONDS = 20  # without a byte received

#: Attempts at a download that stopped half-way; each begins with a request as above.
DOWNLOAD_ATTEMPTS = 2


#: Variables with credentials, which no message shows.
KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def s3_client() -> "S3Client":
    import boto3
    from botocore.config import Config

    def client(session: boto3.Session, style: Literal["auto", "path"]) -> "S3Client":
        return session.client(
            "s3",
            config=Config(
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                max_pool_connections=CONNECTIONS,
                s3={"addressing_style": style},
            ),
        )

    check_endpoint_variables()
    check_key_variables()
    try:
        # boto3's default session would keep the credentials that the process started with.
        session = boto3.Session()
        found = client(session, "auto")
        check_endpoint("The endpoint_url in the configuration of AWS", found.meta.endpoint_url)
        is_amazon = "amazonaws.com" in found.meta.endpoint_url
        # Other servers rarely have a host name for every bucket.
        return found if is_amazon else client(session, "path")
    except StoreError:
        raise
    except Exception as error:  # botocore checks its configuration here: profile, region, endpoint
        raise StoreError(f"S3 is not set up: {error}.") from error


def check_endpoint_variables() -> None:
    """Check the endpoints of the environment, which boto3 would quote in its own errors.

    Raises:
        StoreError: one may have credentials in it, which it does not show.
    """
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        check_endpoint(variable, os.environ.get(variable, ""))


def check_key_variables() -> None:
    """Check the keys of the environment, which botocore would quote in an error about a header.

    Raises:
        StoreError: one has white space in it. It is not shown.
    """
    for variable in KEY_VARIABLES:
        if re.search(r"\s", os.environ.get(variable, "")):
            raise StoreError(
                f"{variable} has a space or the end of a line in it, as of a file that was written "
                "with echo: give the key alone, such as by printf %s."
            )


def check_endpoint(place: str, url: str) -> None:
    if set(url) & set("@?#") or not url.isprintable() or " " in url:
        raise StoreError(
            f"{place} is not of the form https://host:port. Credentials go into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )


def on_condition(client: "S3Client", **condition: str) -> "S3Client":
    """Make a client's writes fail unless a condition holds; boto3's uploads have no option for it.

    ``IfNoneMatch="*"``: there is no object yet; ``IfMatch=ETAG``: the object is this one.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """

    def add_condition(params: dict[str, Any], **_: Any) -> None:
        params.update(condition)

    for operation in ("PutObject", "CompleteMultipartUpload"):
        client.meta.events.register(f"provide-client-params.s3.{operation}", add_condition)
    return client


def transfers(*, in_parts: bool = True) -> "TransferConfig":
    from boto3.s3.transfer import TransferConfig

    part_bytes = PART_BYTES if in_parts else WHOLE_BYTES
    return TransferConfig(
        multipart_threshold=part_bytes,
        multipart_chunksize=part_bytes,
        num_download_attempts=DOWNLOAD_ATTEMPTS,
        # The CRT client, which boto3 prefers where it is installed, ignores the settings and the
        # event handlers of a client.
        preferred_transfer_client="classic",
    )
