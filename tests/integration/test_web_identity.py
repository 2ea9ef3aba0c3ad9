"""S3 by a role, without static keys: credentials that expire are renewed, and are left nowhere."""

import time
from collections.abc import Iterator

import boto3
import psutil
import pytest

from common.store import S3Store, StoreError
from tests.support.fixtures import BUCKET
from tests.support.processes import (
    Fleet,
    running_fleet,
    running_keeper,
    start_anew,
    wait_until,
)
from tests.support.results import load
from tests.support.sts import SessionsOnly, Sts, s3_for_roles

#: Seconds for which a session is good.
SESSION = 3.0


@pytest.fixture
def roles(s3) -> Iterator[tuple[Sts, SessionsOnly]]:
    with s3_for_roles(s3, SESSION) as running:
        yield running


@pytest.fixture
def environment(roles, tmp_path) -> dict[str, str]:
    sts, proxy = roles
    return {"AWS_ENDPOINT_URL_S3": proxy.endpoint_url, **sts.environment(tmp_path)}


@pytest.fixture
def with_role(environment, monkeypatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("with_role")
def test_a_store_outlives_the_session_that_it_began_with(roles, tmp_path):
    sts, proxy = roles
    store = S3Store(BUCKET, tmp_path.name)
    store.put("before", b"1")
    first = dict(sts.sessions)
    wait_until(lambda: time.monotonic() > max(first.values()), 2 * SESSION)
    store.put("after", b"2")
    with store.create("part") as path:
        path.write_bytes(b"3")
    assert sorted(store.keys("")) == ["after", "before", "part"]
    assert sts.sessions.keys() > first.keys()
    assert proxy.refused == 0


@pytest.mark.usefixtures("with_role")
def test_keys_that_are_not_renewed_are_said_to_be_over(roles, monkeypatch, tmp_path):
    sts, _ = roles
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", sts.s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", sts.s3.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-yesterday")
    with pytest.raises(StoreError, match="were for a time that is over: renew AWS_SESSION_TOKEN"):
        S3Store(BUCKET, tmp_path.name).put("key", b"")


@pytest.mark.usefixtures("with_role")
def test_a_role_that_does_not_trust_the_token_is_named_and_the_token_is_not(roles, tmp_path):
    sts, _ = roles
    (tmp_path / "token").write_text("identity-of-somebody-else")
    with pytest.raises(StoreError, match="check AWS_ROLE_ARN, the token in the file") as caught:
        S3Store(BUCKET, tmp_path.name).put("key", b"")
    assert "identity-of" not in str(caught.value)
    assert sts.sessions == {}


@pytest.mark.usefixtures("with_role")
def test_a_token_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match=r"cannot write key: .*nowhere"):
        S3Store(BUCKET, tmp_path.name).put("key", b"")


def test_a_job_by_roles_leaves_no_key_anywhere(
    roles, environment, sockets, tiny, examples, tmp_path
):
    """Producer, keeper and worker, the worker for longer than a session."""
    sts, proxy = roles
    store = f"s3://{BUCKET}/{tmp_path.name}"
    keeper_log, output = tmp_path / "keeper.log", tmp_path / "e.h5"
    with running_fleet(sockets, store, **environment) as fleet:
        with (
            running_keeper(keeper_log, fleet.environment),
            fleet.running_workers(tiny, tmp_path, start=start_anew) as [worker],
        ):
            time.sleep(SESSION)
            submitted = fleet.producer("submit", examples, "--model", tiny, "-o", output)
            assert submitted.returncode == 0, submitted.stderr
            lines = [psutil.Process(worker.supervisor.pid).cmdline(), worker.process.cmdline()]
        left = {
            "redis": dump(fleet),
            "arguments": str(lines).encode(),
            "shown": (submitted.stdout + submitted.stderr).encode(),
            "keeper": keeper_log.read_bytes(),
            "worker": worker.log.read_bytes(),
            "output": output.read_bytes(),
            **objects(sts, tmp_path.name),
        }
    assert len(load(output)["rows"]) == 25
    assert any(name.endswith("manifest.json") for name in left)
    assert any(name.endswith(".h5") for name in left)
    assert proxy.refused == 0
    secrets = [text.encode() for text in (sts.s3.secret_key, sts.identity, *sts.sessions)]
    assert [name for name, data in left.items() if any(text in data for text in secrets)] == []


def dump(fleet: Fleet) -> bytes:
    """Return all that Redis holds; small values are not compressed."""
    redis = fleet.ledger.redis
    redis.config_set("rdbcompression", "no")
    found = []
    for key in redis.scan_iter():
        dumped = redis.execute_command("DUMP", key, NEVER_DECODE=True)
        found.append(key.encode() + dumped)
    return b"".join(found)


def objects(sts: Sts, prefix: str) -> dict[str, bytes]:
    """Return every object under a prefix, read with the server's own keys."""
    client = boto3.client(
        "s3",
        endpoint_url=sts.s3.endpoint_url,
        aws_access_key_id=sts.s3.access_key,
        aws_secret_access_key=sts.s3.secret_key,
        region_name=sts.s3.region,
    )
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    return {
        item["Key"]: client.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
        for item in listed
    }
