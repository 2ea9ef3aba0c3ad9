"""A job's file written as its batches become final: it is the one that ``fetch`` writes after."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from common.embeddings.file import load
from common.errors import NotReadyError, UserError
from common.job.layout import shard_key
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record
from common.ledger.batches import Batches
from common.rungs import Rung
from common.store import FileStore, StoreError
from producer.output.damaged import DamagedShardsError
from producer.output.fetch import fetch
from producer.output.followed import (
    AbandonedError,
    ChangedError,
    FollowedRows,
    Pace,
    final_shards,
    follow,
)
from producer.output.helper import Helper
from producer.output.partial_rows import PartialRows
from producer.output.wanted import Wanted
from tests.support.copies import compute, store_job
from tests.support.jobs import failed, ok, retry_after, unstable
from tests.support.processes import wait_until
from tests.support.shards import same_for_same, store_shard
from tests.support.stores import folder_store

FORMS = {
    "mean": OutputForm(max_residues=5),
    "per residue": OutputForm(include=("mean", "per_residue"), layers=(-1, 2), max_residues=5),
    "all": OutputForm(
        include=("per_residue", "std", "pseudo_perplexity_unmasked", "entropy", "bos", "logits"),
        max_residues=5,
    ),
    "contacts": OutputForm(include=("bos", "contacts", "entropy"), max_residues=5),
}

#: Batches with copies of rows of the same batch, of the one before, and of one far before.
LETTERS = [
    {0: "MKV", 1: "MKVLGAST", 3: "MKV", 4: "GAG"},
    {5: "AAA", 6: "MKVLGAST", 7: "CCC"},
    {8: "CCC", 10: "GAG", 11: "CCC", 12: "MKV", 13: "MKVLGAST"},
    {14: "DDDD"},
    {15: "MKV", 16: "DDDD", 17: "E"},
    {18: "F"},
    {19: "FF", 20: "FFF"},
]
BATCHES = [
    [
        Record(row, f"id{row} é\ttab of {row} {'x' * (row % 3) * 200}", text)
        for row, text in b.items()
    ]
    for b in LETTERS
]
ORDERS = {
    "in order": list(range(7)),
    "reversed": list(range(6, -1, -1)),
    "the first batch last": [5, 6, 3, 1, 2, 4, 0],
}


class Job:
    """A job that is under way, whose batches a test completes in any order."""

    def __init__(self, store: FileStore, ledger, folder: Path, form: OutputForm, **options) -> None:
        self.store, self.ledger, self.folder = store, ledger, folder
        self.manifest = store_job(store, BATCHES, form, skipped=2, **options)
        ledger.jobs.create(self.manifest, "m.fp16")
        self.pace = Pace(0.01)
        folder.mkdir(exist_ok=True)

    def complete(self, *batches: int) -> None:
        for index in batches:
            compute(self.store, self.manifest, index)
            assert self.ledger.results.complete(ok(self.manifest.batch(index)))

    def follow(self, name: str = "followed.h5", **wanted: object):
        return follow(
            *(self.store, self.ledger, self.manifest, self.folder / name, self.pace),
            wanted=Wanted(**wanted),
            before_replacing=lambda: None,
            check_room=lambda _bytes: None,
        )

    def fetch(self, name: str, **wanted: object) -> bytes:
        fetch(self.store, self.manifest, self.folder / name, wanted=Wanted(**wanted))
        return (self.folder / name).read_bytes()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


@pytest.fixture
def job_of(tmp_path, ledger, thread):
    jobs = []

    def job_of(form: str = "mean", **options: object) -> Job:
        store = folder_store(tmp_path / "store")
        jobs.append(Job(store, ledger, tmp_path / "out", FORMS[form], **options))
        return jobs[-1]

    yield job_of
    for job in jobs:
        job.pace.abandon()  # of a test that failed, too


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """The batches whose rows were read so far."""
    found: list[int] = []
    check = FollowedRows.check

    def noted(rows: FollowedRows, index: int, part) -> None:
        check(rows, index, part)
        found.append(index)

    monkeypatch.setattr(FollowedRows, "check", noted)
    return found


@pytest.fixture
def begun(monkeypatch) -> list[int]:
    """The batches that were begun to be read: of those, three are read ahead."""
    found: list[int] = []
    block = FollowedRows.block

    def noted(rows: FollowedRows, index: int, form: OutputForm):
        found.append(index)
        return block(rows, index, form)

    monkeypatch.setattr(FollowedRows, "block", noted)
    return found


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_the_file_is_that_of_a_fetch_bit_for_bit_in_whatever_order_batches_complete(
    job_of, thread, form, order
):
    job = job_of(form)
    following = thread(job.follow)
    for index in order:
        assert job.names() in ([], [name for name in job.names() if name.startswith(".")])
        job.complete(index)
    fetched = following.result(20)
    assert job.names() == ["followed.h5"]
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5")
    assert (fetched.rows, fetched.precisions) == (19, {"fp16": 19})


def test_the_file_of_a_job_of_several_sources_is_that_of_a_fetch(job_of, thread):
    job = job_of()
    sources = [{"name": "a.fa", "records": 9}, {"name": "b.fa", "records": 12}]
    job.manifest = Manifest.model_validate({**dict(job.manifest), "sources": sources})
    following = thread(job.follow)
    job.complete(*ORDERS["the first batch last"])
    following.result(20)
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5")


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"include": ("per_residue",)}])
def test_what_is_wanted_of_it_is_written(job_of, thread, options):
    job = job_of("per residue")
    following = thread(job.follow, **options)
    job.complete(*ORDERS["reversed"])
    following.result(20)
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5", **options)


@pytest.mark.parametrize("suffix", ["csv", "npz", "safetensors"])
def test_other_layouts_are_written_in_the_order_of_the_input(job_of, thread, written, suffix):
    job = job_of()
    following = thread(job.follow, f"followed.{suffix}")
    job.complete(1, 2, 3, 4, 5, 6)
    assert not written
    job.complete(0)
    following.result(20)
    assert written == list(range(7))
    assert (job.folder / f"followed.{suffix}").read_bytes() == job.fetch(f"plain.{suffix}")


def test_rows_with_some_ids_are_written_once_their_batches_are_final(job_of, thread, written):
    job = job_of()
    following = thread(job.follow, ids=("id20", "id10"))
    job.complete(6, 0, 1, 2)
    following.result(20)
    assert written == [2, 6]  # of 0, a copy's original is read alone
    with load(job.folder / "followed.h5") as file:
        assert file.ids == ["id10", "id20"]


def test_a_batch_is_placed_as_it_completes_once_those_are_whose_rows_it_has_copies_of(
    job_of, thread, written
):
    job = job_of()
    following = thread(job.follow)
    job.complete(6, 5, 4)
    job.complete(3)
    wait_until(lambda: written, 10)  # three are read ahead of the one that is written
    job.complete(2, 1, 0)
    following.result(20)
    assert set(written[:3]) <= {3, 4, 5, 6}
    assert written.index(3) < written.index(4)
    assert written.index(0) < min(written.index(1), written.index(2))


def test_rows_that_are_retried_are_written_once_their_batch_is_settled(job_of, thread, written):
    job = job_of(dedup=False)
    following = thread(job.follow)
    result = unstable(job.manifest.batch(1), 6)
    store_shard(job.store, job.manifest, 1, rows=[5, 7], embed=same_for_same)
    job.ledger.results.complete(result)
    job.complete(0, 2, 3, 4, 5, 6)
    wait_until(lambda: len(written) >= 3, 10)
    assert 1 not in written
    assert not following.done()
    store_shard(job.store, job.manifest, 1, rung=Rung.SELECTIVE_FP32, rows=[6], embed=same_for_same)
    job.ledger.results.complete(ok(retry_after(job.manifest, result)))
    assert following.result(20).precisions == {"fp16": 18, "selective_fp32": 1}
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5")


def quarantined(job: Job, row: int, rung: Rung = Rung.FP32) -> None:
    """Complete the last batch, which has a row that no rung could embed."""
    store_shard(job.store, job.manifest, 6, rows=[19], embed=same_for_same)
    bad = unstable(job.manifest.batch(6), row, precision=rung)
    rows = tuple(each.model_copy(update={"id": f"id{row}"}) for each in bad.unstable)
    add_to_quarantine(job.store, Quarantine(job=job.manifest.job, batch=6, rows=rows))
    job.ledger.results.complete(bad)


def test_rows_that_no_rung_could_embed_are_those_of_a_fetch(job_of, thread):
    job = job_of()
    following = thread(job.follow)
    quarantined(job, 20)
    job.complete(*range(5, -1, -1))
    assert [bad.row for bad in following.result(20).quarantined] == [20]
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5")


def test_a_row_that_was_quarantined_and_is_computed_after_all_is_noticed(
    job_of, thread, written, begun
):
    job = job_of()
    following = thread(job.follow)
    quarantined(job, 20)
    wait_until(lambda: begun == [6], 10)
    job.complete(5, 3, 0)
    wait_until(lambda: 6 in written, 10)
    job.store.delete(f"{job.manifest.job}/quarantine/")  # as retry does
    store_shard(job.store, job.manifest, 6, embed=same_for_same)
    job.complete(1, 2, 4)
    with pytest.raises(ChangedError):
        following.result(20)
    assert job.names() == []


def test_a_batch_that_goes_through_another_rung_after_it_was_written_is_noticed(
    job_of, thread, written, begun
):
    job = job_of()
    following = thread(job.follow)
    job.complete(6)
    wait_until(lambda: begun == [6], 10)
    job.complete(5, 3, 0)
    wait_until(lambda: 6 in written, 10)
    job.ledger.results.reopen(ok(job.manifest.batch(6)))
    result = unstable(job.manifest.batch(6), 20)
    job.ledger.results.complete(result)
    job.ledger.results.complete(ok(retry_after(job.manifest, result)))
    job.complete(1, 2, 4)
    with pytest.raises(ChangedError):
        following.result(20)
    assert job.names() == []


def test_a_late_duplicate_of_a_shard_does_no_harm(job_of, thread, written, begun):
    """Its rows are the same; numbers that differ in their last digits are as good as the first."""
    job = job_of()
    following = thread(job.follow)
    job.complete(6)
    wait_until(lambda: begun == [6], 10)
    job.complete(5, 3, 0)
    wait_until(lambda: 6 in written, 10)
    first = job.store.get(shard_key(job.manifest.job, 6, Rung.FP16))
    store_shard(job.store, job.manifest, 6)  # with other numbers
    job.complete(1, 2, 4)
    following.result(20)
    job.store.put(shard_key(job.manifest.job, 6, Rung.FP16), first)
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5")


def test_a_damaged_shard_is_the_error_of_a_fetch(job_of, thread):
    job = job_of()
    following = thread(job.follow)
    job.complete(5)
    compute(job.store, job.manifest, 6)
    key = shard_key(job.manifest.job, 6, Rung.FP16)
    job.store.put(key, job.store.get(key)[:-1000])
    job.ledger.results.complete(ok(job.manifest.batch(6)))
    job.complete(0, 3, 1, 2, 4)
    with pytest.raises(DamagedShardsError) as caught:
        following.result(20)
    with pytest.raises(DamagedShardsError) as fetched:
        fetch(job.store, job.manifest, job.folder / "plain.h5")
    assert str(caught.value) == str(fetched.value)
    assert job.names() == []


def test_the_shard_of_other_rows_is_the_error_of_a_fetch(job_of, thread, begun):
    job = job_of(dedup=False)
    following = thread(job.follow)
    records = [Record(row, f"id{row}", "FF") for row in (18, 20)]
    store_shard(
        *(job.store, job.manifest, 6),
        embed=lambda _, *form, **kind: same_for_same(records, *form, **kind),
    )
    job.ledger.results.complete(ok(job.manifest.batch(6)))
    wait_until(lambda: begun == [6], 10)
    job.complete(0, 1, 2)
    with pytest.raises(DamagedShardsError, match="has rows of another batch, near row 18"):
        following.result(20)
    assert job.names() == []


@pytest.mark.parametrize("sealed", [True, False])
def test_the_shard_of_other_headers_is_noticed(job_of, thread, begun, sealed):
    job = job_of(dedup=False)
    following = thread(job.follow)
    records = [Record(row, f"other{row}", text) for row, text in LETTERS[6].items()]
    store_shard(
        *(job.store, job.manifest, 6),
        sealed=sealed,
        embed=lambda _, *form, **kind: same_for_same(records, *form, **kind),
    )
    job.ledger.results.complete(ok(job.manifest.batch(6)))
    wait_until(lambda: begun == [6], 10)
    job.complete(0, 1, 2)
    with pytest.raises(DamagedShardsError, match="has rows of another batch, near row 19"):
        following.result(20)
    assert job.names() == []


@pytest.mark.parametrize("dedup", [True, False])
def test_shards_without_a_seal_are_read_as_a_whole(job_of, thread, dedup):
    job = job_of(dedup=dedup)
    for index in range(job.manifest.batches):
        store_shard(job.store, job.manifest, index, sealed=False, embed=same_for_same)
        job.ledger.results.complete(ok(job.manifest.batch(index)))
    job.follow()
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5")


def test_helpers_change_nothing_in_the_file(job_of, thread, monkeypatch):
    monkeypatch.setattr("producer.output.helper.SEVERAL_CPUS", 0)
    monkeypatch.setattr("producer.output.helper.MANY_ROWS", 0)
    ask = Helper.ask
    answered = lambda helper, question: wait_until(lambda: ask(helper, question), 60)  # noqa: E731
    monkeypatch.setattr(Helper, "ask", answered)
    job = job_of("per residue")
    following = thread(job.follow)
    job.complete(0, 1, 2)
    quarantined(job, 20)
    job.complete(3, 4, 5)
    following.result(60)
    monkeypatch.undo()
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5")


@pytest.mark.parametrize("error", [RedisConnectionError("gone"), StoreError("503")])
def test_a_redis_and_a_store_that_do_not_answer_are_waited_for(job_of, thread, monkeypatch, error):
    job = job_of()
    name, where = (
        ("settled", Batches) if isinstance(error, RedisConnectionError) else ("get", FileStore)
    )
    whole, failures = getattr(where, name), [error] * 20

    def sometimes(*arguments):
        if failures and not job.pace.ended:
            raise failures.pop()
        return whole(*arguments)

    job.complete(*range(7))
    expected = job.fetch("plain.h5")
    monkeypatch.setattr(where, name, sometimes)
    thread(job.follow).result(20)
    assert not failures
    assert (job.folder / "followed.h5").read_bytes() == expected


def test_an_end_without_all_batches_leaves_the_file_to_a_fetch(job_of, thread):
    job = job_of()
    following = thread(job.follow)
    job.ledger.results.complete(failed(job.manifest.batch(1)))
    job.complete(0, 2, 3, 4, 5, 6)
    job.pace.end()
    with pytest.raises(ChangedError):
        following.result(20)
    assert job.names() == []


@pytest.mark.parametrize("done", [[], [5, 6, 3, 0]], ids=["at once", "in the middle"])
def test_what_was_written_is_removed_when_it_is_abandoned(job_of, thread, done):
    job = job_of()
    following = thread(job.follow)
    job.complete(*done)
    if done:
        wait_until(job.names, 10)
    job.pace.abandon()
    with pytest.raises(AbandonedError):
        following.result(20)
    assert job.names() == []


KILLED = """
import sys
from pathlib import Path
from common.job.manifest import read_manifest
from common.ledger.ledger import Ledger
from common.store import open_store
from common.wire.redis_client import connect
from producer.output.followed import Pace, follow
from producer.output.wanted import Wanted

store, url, job, output = sys.argv[1:]
store = open_store(store)
follow(store, Ledger(connect(url)), read_manifest(store, job), Path(output), Pace(0.01),
       wanted=Wanted(), before_replacing=lambda: None, check_room=lambda _bytes: None)
"""


def test_after_a_kill_the_same_again_writes_the_file_of_a_fetch(job_of, thread, redis_url):
    job = job_of()
    job.complete(5, 6, 3)
    words = [job.store.url, redis_url, job.manifest.job, str(job.folder / "followed.h5")]
    killed = subprocess.Popen([sys.executable, "-c", KILLED, *words])
    wait_until(job.names, 60)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (left,) = job.names()
    assert left.startswith(".followed.h5.")
    os.utime(job.folder / left, (0, 0))  # a while ago
    job.complete(0, 1, 2, 4)
    thread(job.follow).result(20)
    assert job.names() == ["followed.h5"]
    assert (job.folder / "followed.h5").read_bytes() == job.fetch("plain.h5")


# --- partial files --------------------------------------------------------------------------------


def partial(job: Job, name: str, **wanted: object):
    keys = final_shards(job.ledger, job.manifest)
    rows = PartialRows(job.store, job.manifest, keys, job.folder)
    return rows.write(
        *(job.folder / name, Wanted(partial=True, **wanted)),
        before_replacing=lambda: None,
        check_room=lambda _bytes: None,
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_partial_file_has_the_rows_that_are_final_and_says_so(job_of, form):
    job = job_of(form)
    job.complete(3, 1, 4, 6, 0)
    job.ledger.results.complete(failed(job.manifest.batch(5)))
    fetched = partial(job, "some.h5")
    assert (fetched.rows, fetched.partial) == (13, "5 of 7 batches")
    with load(job.folder / "some.h5") as file:
        rows = [r.row for index in (0, 1, 3, 4, 6) for r in BATCHES[index]]
        assert [int(id_.removeprefix("id")) for id_ in file.ids] == rows
        assert file.attributes["partial"] == "5 of 7 batches"
        assert file.attributes["job"] == job.manifest.job
    job.complete(2)
    assert partial(job, "some.h5").rows == 18


def test_a_batch_with_copies_of_rows_that_are_not_final_is_not_in_a_partial_file(job_of):
    job = job_of()
    job.complete(2, 4, 6)
    assert partial(job, "some.h5").partial == "1 of 7 batches"


def test_a_partial_file_of_no_batch_is_not_written(job_of):
    with pytest.raises(NotReadyError, match=r"None of 7 batches of job-.* is done yet"):
        partial(job_of(), "some.h5")
    job = job_of()
    job.complete(2)  # it has copies of rows of others
    with pytest.raises(NotReadyError, match=r"None of 7 batches of job-.* can be written yet"):
        partial(job, "some.h5")


def test_a_partial_file_with_some_ids_is_refused():
    with pytest.raises(UserError, match="partial and ids"):
        Wanted(partial=True, ids=("a",))
