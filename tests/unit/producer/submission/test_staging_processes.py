"""Processes that stage an input together: the same result from every format, and their ends."""

import gzip
import os
import random
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from common.errors import InputError, ProcessEndedError
from common.store import FileStore, StoreError, open_store
from producer.input import pieces
from producer.input.batches import Budget
from producer.input.source import Source
from producer.scheduling.job_lock import JobLockedError
from producer.submission import staged_batches, staging_pool
from producer.submission.request import Request, make_request
from tests.support.fixtures import BUCKET
from tests.support.staging import outcome, staged
from tests.support.stores import folder_store
from tests.unit.common.local.test_processes import is_alive

MODEL = "esm2_t6_8M_UR50D"
BUDGET = Budget(tokens=10_000)


def records() -> list[tuple[str, str]]:
    """Return proteins, some of which are identical."""
    draw = random.Random(0)
    sequences = ["".join(draw.choices("LAGVSERTIDPKQNFYMHWC", k=300)) for _ in range(500)]
    return [(f"r{row} of {row}", draw.choice(sequences)) for row in range(2000)]


IDENTICAL = len(records()) - len({sequence for _, sequence in records()})


def as_fasta(found: list[tuple[str, str]]) -> bytes:
    lines = (f">{header}\n{s[:60]}\n{s[60:]}\n" for header, s in found)
    return "".join(lines).encode()


def as_fastq(found: list[tuple[str, str]]) -> bytes:
    return "".join(f"@{header}\n{s}\n+\n{'I' * len(s)}\n" for header, s in found).encode()


def as_table(found: list[tuple[str, str]]) -> bytes:
    return ("id,sequence\n" + "".join(f"{header},{s}\n" for header, s in found)).encode()


def as_gzip(found: list[tuple[str, str]]) -> bytes:
    return gzip.compress(as_fasta(found))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have twenty pieces of an input."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 32_000)


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    path = tmp_path / "p.fasta"
    path.write_bytes(as_fasta(records()))
    return make_request(Source(str(path)), MODEL)


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were started."""
    found: list[int] = []
    start = staging_pool.start_dependent

    def noted(*arguments: object, **options: object) -> object:
        process = start(*arguments, **options)
        found.append(process.pid)
        return process

    monkeypatch.setattr(staging_pool, "start_dependent", noted)
    return found


def after_batches(number: int, event: Callable[[], object]) -> Callable[[int], None]:
    """Return what is called with each batch, and has something happen after some of them."""
    left = [number]

    def on_batch(_records: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            event()

    return on_batch


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("p.fasta", as_fasta),
        ("p.fasta.gz", as_gzip),
        ("p.fastq", as_fastq),
        ("p.csv", as_table),
    ],
)
def test_every_format_is_staged_by_processes_as_by_one(tmp_path, pids, name, encode):
    path = tmp_path / name
    path.write_bytes(encode(records()))
    request = make_request(Source(str(path)), MODEL)
    one, three = (outcome(tmp_path / f"by-{n}", request, BUDGET, n, MODEL) for n in (1, 3))
    assert three == one
    manifest, objects = three
    assert manifest.report.identical == IDENTICAL
    assert len(objects) > 20
    assert len(pids) == 3
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("large", [True, False])
def test_a_stream_is_staged_by_processes_if_it_is_large(tmp_path, monkeypatch, pids, large):
    monkeypatch.setattr(staged_batches, "LARGE_BYTES", 100_000 if large else 10**9)
    monkeypatch.setattr(staged_batches, "usable_cpus", lambda: 2.5)
    pipe, data = tmp_path / "pipe", as_fasta(records())
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[data])
    writer.start()
    request = make_request(Source(str(pipe)), MODEL)
    manifest = staged(folder_store(tmp_path / "store"), request, BUDGET, None, MODEL)
    writer.join()
    assert len(pids) == (2 if large else 0)
    assert (manifest.report.records, manifest.report.identical) == (2000, IDENTICAL)


def test_processes_stage_an_object_of_a_bucket_into_the_bucket(tmp_path, s3, monkeypatch, pids):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    folder, found = f"s3://{BUCKET}/{tmp_path.name}", []
    boto3.client("s3").put_object(
        Bucket=BUCKET, Key=f"{tmp_path.name}/p.fasta", Body=as_fasta(records())
    )
    request = make_request(Source(f"{folder}/p.fasta"), MODEL)
    for processes in (1, 2):
        store = open_store(f"{folder}/store-{processes}")
        store.check_writable()
        manifest = staged(store, request, BUDGET, processes, MODEL)
        found.append((manifest, {key: store.get(key) for key in store.keys(f"{manifest.job}/")}))
    assert len(pids) == 2
    assert found[0] == found[1]
    assert found[0][0].report.records == 2000


def test_a_small_file_is_staged_by_this_process(tmp_path, request_, pids):
    assert staged(folder_store(tmp_path / "store"), request_, BUDGET, None, MODEL).batches > 10
    assert pids == []


def test_a_stream_that_is_bad_at_its_beginning_is_refused_as_a_file_is(tmp_path, monkeypatch):
    monkeypatch.setattr(staged_batches, "usable_cpus", lambda: 2.0)
    found = []
    for name in ("file", "pipe"):
        path = tmp_path / name
        data = b">a\nMKT\n>b\nM\xff"
        if name == "pipe":
            os.mkfifo(path)
            threading.Thread(target=path.write_bytes, args=[data]).start()
        else:
            path.write_bytes(data)
        request = make_request(Source(str(path), label="input"), MODEL)
        found.append(outcome(tmp_path / f"of-{name}", request, BUDGET, None, MODEL))
    assert found[0] == found[1]
    assert "line 4" in found[0][1]


def fails(
    store: FileStore, request: Request, pids: list[int], event: Callable[[], object], error: type
) -> pytest.ExceptionInfo[BaseException]:
    """Check that staging ends with an error, and that nothing is left of it."""
    with pytest.raises(error) as found:
        staged(store, request, BUDGET, 2, MODEL, on_batch=after_batches(3, event))
    assert list(store.keys("")) == list(store.folders()) == []
    assert len(pids) == 2
    assert not any(map(is_alive, pids))
    return found


def test_a_process_that_is_killed_ends_the_staging(tmp_path, request_, pids):
    store = folder_store(tmp_path / "store")
    kill = lambda: os.kill(pids[0], signal.SIGKILL)  # noqa: E731
    error = fails(store, request_, pids, kill, ProcessEndedError).value
    assert "signal 9" in str(error)
    assert "Nothing was queued" in str(error)


def test_processes_end_when_the_user_stops_the_command(tmp_path, request_, pids):
    def stop() -> None:
        raise KeyboardInterrupt

    fails(folder_store(tmp_path / "store"), request_, pids, stop, KeyboardInterrupt)


def test_a_file_that_is_replaced_meanwhile_is_not_read_on(tmp_path, request_, pids):
    path, other = Path(request_.source.name), tmp_path / "other"
    other.write_bytes(path.read_bytes())

    def replace() -> None:
        other.replace(path)

    found = fails(folder_store(tmp_path / "store"), request_, pids, replace, InputError)
    assert "cannot be read to its end (it was replaced meanwhile)" in str(found.value)


def test_a_disk_that_is_full_is_an_error_of_the_store(tmp_path, request_, pids):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))  # of each file; processes inherit
    try:
        found = fails(folder_store(tmp_path / "store"), request_, pids, lambda: None, StoreError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in str(found.value)


def test_processes_write_nothing_once_another_producer_has_the_lock(tmp_path, request_, pids):
    store, asked = folder_store(tmp_path / "store"), []

    def keep(check: Callable[[], None]) -> None:
        asked.append(check)
        if len(asked) > 1:
            raise JobLockedError("another producer has it")

    with pytest.raises(JobLockedError):
        staged(store, request_, BUDGET, 2, MODEL, keep=keep)
    assert not any(map(is_alive, pids))
    assert list(store.keys("")) == []


def test_an_error_of_a_process_at_its_start_is_the_error_of_the_staging(tmp_path, request_, pids):
    store = folder_store(tmp_path / "store")
    store.url = "file://nowhere"
    with pytest.raises(Exception, match="give a folder"):
        staged(store, request_, BUDGET, 2, MODEL)
    assert not any(map(is_alive, pids))
