"""``fetch(follow=True)`` and ``fetch --follow``: one job to its file, with results of no worker."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.embeddings.file import load
from common.errors import JobEndedError, NotReadyError, UserError
from producer.fleet import following
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.output import followed
from tests.support.jobs import failed, ok
from tests.support.processes import clean_environment, run_producer, wait_until
from tests.support.shards import same_for_same, store_shard

MODEL = "esm2_t6_8M_UR50D"


@pytest.fixture
def fleet(redis, redis_url, tmp_path) -> Fleet:
    fleet = Fleet(broker=redis_url, store=str(tmp_path / "store"))
    fleet.store.check_writable()
    return fleet


@pytest.fixture
def job(fleet) -> Job:
    with pytest.warns(UserWarning, match="no worker serves"):
        return fleet.submit(["MKV", "GA", "LIV", "WY"], model=MODEL, batch_tokens=4)


@pytest.fixture
def output(tmp_path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "e.h5"


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def complete(job: Job, *batches: int) -> None:
    for index in batches:
        store_shard(job.fleet.store, job.manifest, index, embed=same_for_same)
        assert job.fleet.ledger.results.complete(ok(job.manifest.batch(index)))


def names(output: Path) -> list[str]:
    return [path.name for path in output.parent.iterdir()]


def plain(job: Job, output: Path) -> bytes:
    path = output.parent / "plain.h5"
    job.fetch(path)
    return path.read_bytes()


def test_a_job_is_followed_to_its_file(job, output, thread):
    assert job.manifest.batches == 4
    fetching = thread(job.fetch, output, follow=True)
    complete(job, 3, 1)
    wait_until(lambda: names(output), 10)
    assert names(output)[0].startswith(".e.h5.")
    complete(job, 0, 2)
    assert fetching.result(20).path == output
    assert names(output) == ["e.h5"]
    assert output.read_bytes() == plain(job, output)


def test_a_finished_job_is_fetched_without_redis(job, output, monkeypatch):
    complete(job, 0, 1, 2, 3)
    monkeypatch.setattr(Job, "wait", None)
    assert job.fetch(output, follow=True).rows == 4


@pytest.mark.parametrize("done", [(), (1, 2)], ids=["before", "after its first batch"])
def test_a_job_that_is_cancelled_leaves_no_file(job, output, thread, done):
    fetching = thread(job.fetch, output, follow=True)
    complete(job, *done)
    if done:
        wait_until(lambda: names(output), 10)
    job.cancel()
    with pytest.raises(JobEndedError, match="was cancelled"):
        fetching.result(20)
    assert names(output) == []


def test_a_job_of_which_a_batch_failed_leaves_no_file(job, output, thread):
    fetching = thread(job.fetch, output, follow=True)
    job.fleet.ledger.results.complete(failed(job.manifest.batch(0)))
    complete(job, 1, 2, 3)
    with pytest.raises(NotReadyError, match=r"1 of 4 batches of .* have no output yet"):
        fetching.result(20)
    assert names(output) == []


def test_what_cannot_be_followed_is_fetched_at_the_end(job, output, thread, monkeypatch):
    changed = []

    def check(rows) -> None:
        changed.append(rows)
        raise followed.ChangedError

    monkeypatch.setattr(followed.FollowedRows, "check_unchanged", check)
    fetching = thread(job.fetch, output, follow=True)
    complete(job, 0, 1, 2, 3)
    assert fetching.result(20).rows == 4
    assert changed
    assert names(output) == ["e.h5"]


def test_too_little_room_is_a_problem_at_the_first_batch_and_not_the_end_of_it(
    job, output, monkeypatch
):
    class Full:
        free = 10

    monkeypatch.setattr(following.shutil, "disk_usage", lambda _: Full)
    complete(job, 2)
    place = job.output_file(output)
    with job.following(place) as file:
        wait_until(lambda: file.problem, 10)
        assert "e.h5 will have about 1." in str(file.problem)
        assert "and 10 bytes are free there" in str(file.problem)
        complete(job, 0, 1, 3)
        job.wait()
        assert job.finish(file, place).rows == 4


def test_a_file_that_another_wrote_meanwhile_stays(job, output, thread):
    fetching = thread(job.fetch, output, follow=True)
    complete(job, 0, 1)
    wait_until(lambda: names(output), 10)
    output.write_text("mine")
    complete(job, 2, 3)
    with pytest.raises(UserError, match="exists and is another file"):
        fetching.result(20)
    assert names(output) == ["e.h5"]
    assert output.read_text() == "mine"


def test_a_partial_file_gives_way_to_a_whole_one_and_not_the_other_way_round(job, output):
    complete(job, 1)
    assert job.fetch(output, partial=True).partial == "1 of 4 batches"
    complete(job, 0)
    assert job.fetch(output, partial=True).rows == 2
    complete(job, 2, 3)
    assert job.fetch(output).partial is None
    with load(output) as file:
        assert "partial" not in file.attributes
    with pytest.raises(UserError, match="exists and has the embeddings of job"):
        job.fetch(output, partial=True)
    assert job.fetch(output, partial=True, overwrite=True).partial is None  # all are done


def test_a_file_is_either_followed_or_partial(job, output):
    with pytest.raises(UserError, match="follow and partial"):
        job.fetch(output, follow=True, partial=True)


# --- the command ----------------------------------------------------------------------------------


def run(job: Job, *words: object):
    settings = job.fleet.settings
    environment = clean_environment(
        VIRNUCPRO_BROKER_URL=settings.broker_url, VIRNUCPRO_STORE=str(settings.store)
    )
    return run_producer("fetch", job.name, *words, environment=environment)


def test_fetch_follows_a_job_and_names_the_option_where_it_is_not_finished(job, output, thread):
    early = run(job, "-o", output)
    assert early.returncode == 3
    assert f"meanwhile: producer fetch {job.name} -o FILE --follow\n" in early.stderr
    complete(job, 2, 0)
    some = output.parent / "some.h5"
    partial = run(job, "-o", some, "--partial")
    assert partial.returncode == 0, partial.stderr
    assert "some.h5 is partial: it has the rows of 2 of 4 batches of the job." in partial.stderr
    some.unlink()
    following = thread(run, job, "-o", output, "--follow")
    wait_until(lambda: names(output), 60)
    complete(job, 1, 3)
    done = following.result(60)
    assert done.returncode == 0, done.stderr
    assert f"Wrote 4 embeddings to {output}." in done.stderr
    assert output.read_bytes() == plain(job, output)


def test_fetch_of_a_job_that_is_cancelled_says_so(job, output, thread):
    complete(job, 2)
    following = thread(run, job, "-o", output, "--follow")
    wait_until(lambda: names(output), 60)
    job.cancel()
    assert "was cancelled" in following.result(60).stderr
    assert names(output) == []
