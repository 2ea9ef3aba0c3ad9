"""``producer init``: a new store by a command, after which the demand of a fleet is known as 0."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.store import open_store
from common.store.base import MARKER
from tests.support.http import answer_at, free_address, metrics_at
from tests.support.processes import Fleet, running_keeper, wait_until

NO_STORE = 'virnucpro_keeper_step_errors_total{cause="no_store"}'

MODEL = "random:esm2_t6_8M_UR50D"


@pytest.fixture(params=["folder", "bucket"])
def new_fleet(request: pytest.FixtureRequest) -> Fleet:
    """A fleet without a store, which is to be in a folder or in a bucket of a real S3 server."""
    return request.getfixturevalue("fleet" if request.param == "folder" else "s3_fleet")


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "p.fasta"
    path.write_text(">a\nMKTAYIAK\n")
    return path


@pytest.fixture
def address(new_fleet: Fleet, tmp_path: Path) -> Iterator[str]:
    """The address of a keeper of the fleet."""
    address = free_address()
    log = tmp_path / "keeper.log"
    with running_keeper(log, new_fleet.environment, "--metrics", address):
        yield address


def test_after_init_a_keeper_answers_0_and_before_it_nothing_known(
    new_fleet, address, fasta, tmp_path, monkeypatch
):
    for name, value in new_fleet.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    store = open_store(new_fleet.store_url)
    wait_until(lambda: metrics_at(address)[NO_STORE] >= 2, 20)
    assert "The demand is not known" in answer_at(address, "demand")["error"]
    assert not (tmp_path / "store").exists()

    made = new_fleet.producer("init")
    assert (made.returncode, made.stderr) == (0, f"Made the store {store.url}.\n")
    wait_until(lambda: answer_at(address, "demand") == {"batches": 0, "pools": {}}, 20)
    errors = metrics_at(address)[NO_STORE]
    query = "demand?model=random:esm2_t6_8M_UR50D&precision=fp16"
    pool = "random.esm2_t6_8M_UR50D.fp16"
    assert answer_at(address, query) == {"pool": pool, "batches": 0}

    again = new_fleet.producer("init")
    assert again.returncode == 0
    assert again.stderr == f"{store.url} is a store already, and can be written.\n"
    assert list(store.keys("")) == []
    assert store.get(MARKER) == b""

    job = new_fleet.producer("submit", fasta, "--model", MODEL)
    assert job.returncode == 0, job.stderr
    wait_until(lambda: answer_at(address, query) == {"pool": pool, "batches": 1}, 20)
    keys = list(store.keys(""))
    assert "is a store already" in new_fleet.producer("init").stderr
    assert list(store.keys("")) == keys
    assert metrics_at(address)[NO_STORE] == errors


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
def test_init_makes_no_store_where_one_with_open_jobs_was(fleet, fasta, tmp_path, left):
    address, root = free_address(), tmp_path / "store"
    job = fleet.producer("submit", fasta, "--model", MODEL).stdout.strip()
    with running_keeper(tmp_path / "keeper.log", fleet.environment, "--metrics", address):
        wait_until(lambda: answer_at(address, "demand").get("batches") == 1, 20)
        root.rename(tmp_path / "away")
        if left == "an empty mount point":
            root.mkdir()
        done = fleet.producer("init")
        assert done.returncode == 2
        assert f"job {job} is open: mount it" in done.stderr
        assert root.exists() == (left != "nothing")
        assert list(tmp_path.glob("store/*")) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"VIRNUCPRO_STORE": None}, "No store is set"),
        ({"VIRNUCPRO_STORE": "{folder}/file"}, "/file: cannot"),
        ({"VIRNUCPRO_STORE": "s3://no-such-bucket-here"}, "Create the bucket first"),
        ({"VIRNUCPRO_STORE": "ftp://store"}, "give a folder"),
        ({"VIRNUCPRO_BROKER_URL": "redis://127.0.0.1:1/0"}, "Redis"),
        ({"VIRNUCPRO_MESSAGE_KEY": "short"}, "VIRNUCPRO_MESSAGE_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
    ],
    ids=["no_store", "a_file", "no_bucket", "no_scheme", "no_redis", "short_key", "wrong_secret"],
)
def test_init_refuses_what_submit_refuses(s3_fleet, fasta, tmp_path, changed, said):
    (tmp_path / "file").write_bytes(b"")
    environment = dict(s3_fleet.environment)
    for name, value in changed.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.format(folder=tmp_path)
    fleet = Fleet(s3_fleet.broker_url, "", environment)
    for words in (["init"], ["submit", fasta, "--model", MODEL]):
        done = fleet.producer(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
