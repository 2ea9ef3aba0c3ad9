"""Checks of a store: a folder, a real S3 server, and almost one."""

import boto3
import pytest

from common.checks.check import HANGS, Check, Group, Outcome, failed, run_checks
from common.checks.rights import Role
from common.checks.storage import check_store
from tests.support.fixtures import BUCKET
from tests.support.s3_proxy import Fault, S3Proxy, s3_proxy
from tests.support.stores import folder_store

BUCKET_CHECKS = [
    *("store", "store credentials", "store write", "store read", "store list"),
    *("store multipart", "store conditional put", "store delete"),
]
FOLDER_CHECKS = [
    *("store", "store write", "store read", "store list", "store conditional put"),
    "store delete",
]


def checks(url: str, role: Role = "producer") -> dict[str, Check]:
    return {check.name: check for check in check_store(url, role)}


def troubles(found: dict[str, Check]) -> dict[str, Outcome]:
    return {name: each.outcome for name, each in found.items() if each.outcome is not Outcome.OK}


# --- a folder -----------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_folder_that_is_a_store(tmp_path):
    store = folder_store(tmp_path / "store")
    before = sorted(store.root.iterdir())
    found = checks(store.url)
    assert list(found) == FOLDER_CHECKS
    assert troubles(found) == {}
    assert sorted(store.root.iterdir()) == before


def test_a_folder_that_is_no_store_does_not_become_one(tmp_path):
    assert troubles(checks(str(tmp_path))) == {"store": Outcome.WARNING}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    found = checks(str(tmp_path / "none"))
    assert troubles(found) == {"store": Outcome.FAILED}
    assert "mount it" in found["store"].advice
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_reading_only_is_said():
    found = checks("/proc/self")  # in which nobody makes a file
    assert troubles(found)["store write"] is Outcome.FAILED
    assert found["store list"].outcome is Outcome.OK


# --- a bucket -----------------------------------------------------------------------------------


@pytest.fixture
def url(s3, tmp_path, monkeypatch) -> str:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def proxy(url, s3, monkeypatch):
    with s3_proxy(s3) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.endpoint_url)
        yield running


def objects(url: str) -> list[str]:
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=url.split("/", 3)[3])
    return [item["Key"] for item in listed.get("Contents", [])]


def test_nothing_is_wrong_with_a_bucket_and_nothing_is_left_in_it(url, s3):
    found = checks(url)
    assert list(found) == BUCKET_CHECKS
    assert troubles(found) == {"store": Outcome.WARNING}  # no submit has made it a store
    assert s3.endpoint_url in found["store"].text
    assert found["store credentials"].text == "from the environment (AWS_ACCESS_KEY_ID)"
    assert objects(url) == []


def test_no_key_is_shown(url, s3):
    shown = "".join(check.line() for check in checks(url).values())
    assert s3.access_key not in shown
    assert s3.secret_key not in shown


def test_a_bucket_for_reading_only_is_said(url, proxy: S3Proxy):
    for method in ("PUT", "POST", "DELETE"):
        proxy.fail(Fault.ACCESS_DENIED, method, "")
    found = checks(url)
    assert troubles(found) == {
        "store": Outcome.WARNING,
        "store write": Outcome.FAILED,
        "store multipart": Outcome.FAILED,
        "store conditional put": Outcome.WARNING,
        "store delete": Outcome.FAILED,
    }
    assert "allow s3:PutObject" in found["store write"].advice
    assert troubles(checks(url, "worker"))["store delete"] is Outcome.WARNING


def test_a_bucket_that_may_not_be_listed_is_said(url, proxy: S3Proxy):
    proxy.fail(Fault.ACCESS_DENIED, "GET", "list-type=2")
    found = checks(url)
    assert troubles(found) == {"store": Outcome.WARNING, "store list": Outcome.FAILED}
    assert "allow s3:ListBucket" in found["store list"].advice
    assert troubles(checks(url, "worker"))["store list"] is Outcome.WARNING


@pytest.mark.parametrize("fault", [Fault.IGNORED, Fault.NOT_IMPLEMENTED], ids=lambda f: f.name)
def test_a_server_without_conditional_writes_is_said(url, proxy: S3Proxy, fault):
    proxy.fail(fault, "PUT", "", header="If-None-Match")
    found = checks(url)
    assert troubles(found) == {
        "store": Outcome.WARNING,
        "store conditional put": Outcome.WARNING,
    }
    assert "If-None-Match" in found["store conditional put"].text


def test_a_server_without_multipart_uploads_is_said(url, proxy: S3Proxy):
    proxy.fail(Fault.NOT_IMPLEMENTED, "POST", "uploads")
    assert troubles(checks(url)) == {
        "store": Outcome.WARNING,
        "store multipart": Outcome.WARNING,
    }


def test_a_server_that_does_not_answer_is_given_up(url, proxy: S3Proxy):
    proxy.fail(Fault.STALL, "PUT", "", seconds=8)
    found = run_checks([Group("store", lambda: check_store(url, "producer"), seconds=2)])
    assert found[-1] == failed("store", "no answer within 2 s", HANGS)


def test_a_bucket_that_is_not_there_is_said(url):
    found = checks("s3://no-such-bucket-here/x")
    assert found["store write"].outcome is Outcome.FAILED
    assert found["store write"].advice == "make the bucket, or correct its name"


def test_no_credentials_are_said(url, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = checks(url)
    assert found["store"].outcome is Outcome.FAILED
    assert "AWS_ACCESS_KEY_ID" in found["store"].advice
