"""``--json``: each document has the fields that docs/formats.md says."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from common.ledger.events import Event, EventKind
from common.ledger.progress import JobState
from common.ledger.workers import CurrentBatch, WorkerInfo
from common.rungs import Rung
from common.wire.dead_letters import DeadLetter
from common.wire.messages import Instability
from producer.scheduling.deletion import Size
from producer.scheduling.observation import Observation
from producer.submission.check import check
from producer.submission.input_check import InputCheck
from producer.terminal import documents
from producer.terminal.documents import Printed
from tests.conftest import ROOT
from tests.support.jobs import SEEN, manifest_of, progress

PAGE = (
    (ROOT / "docs" / "formats.md")
    .read_text()
    .partition("## JSON for scripts")[2]
    .partition("\n## ")[0]
)

WORKER = WorkerInfo(
    name="w",
    model="m",
    weights="w",
    device="CPU",
    precision=Rung.FP32,
    queues=("m.fp16",),
    started=1_700_000_000.5,
    current=(CurrentBatch(job="in-0123", batch=1, rung=Rung.FP16, tokens=2, seconds=0.5),),
)


def section(heading: str) -> str:
    _, found = PAGE.split(f"### {heading}\n")
    return found.partition("\n### ")[0]


def documented(heading: str) -> list[str]:
    """Return the fields that a section's table has."""
    cells = [line.split("|")[1] for line in section(heading).splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def described(heading: str, field: str) -> list[str]:
    """Return the fields of the objects in a field, that its cell lists first."""
    (line,) = [line for line in section(heading).splitlines() if line.startswith(f"| `{field}` |")]
    text = re.sub(r"\([^)]*\)", "", line.split("|")[3])
    return re.findall(r"`(\w+)`", text)


def printed(document: Printed | InputCheck) -> dict[str, object]:
    return json.loads(document.text())


def job_status() -> Printed:
    job = progress(rows_fp16=3)
    return documents.JobStatus.of_job(
        job,
        None,
        queued=dict.fromkeys(job.queues, 0),
        waits="",
        workers=[WORKER],
        problems=["x"],
        events=[Event(event=EventKind.RETRY, time=0, job="j", batch=1)],
        unreadable=["y"],
    )


JOB = "A job, in `producer jobs` and `producer status`"
WORKERS = "A worker, in `producer status` and `producer status JOB`"

DOCUMENTS = {
    JOB: lambda: documents.PrintedJob.of(progress()),
    WORKERS: lambda: documents.PrintedWorker.of(WORKER),
    "`producer jobs`": lambda: documents.JobList(jobs=(), unreadable=()),
    "`producer status`": lambda: documents.FleetStatus(
        workers=(), jobs=(), dead_letters=0, unreadable=()
    ),
    "`producer watch JOB`": lambda: documents.WatchLine.of("j", Observation(progress()), ""),
    "`producer quarantine JOB`": lambda: documents.QuarantineList(job="j", sequences=()),
    "`producer verify JOB`": lambda: documents.Verification.of(manifest_of([1]), []),
    "`producer check INPUT`": lambda: check(["MKT"]),
    "`producer dead-letters`": lambda: documents.DeadLetterList(dead_letters=()),
}


@pytest.mark.parametrize("heading", DOCUMENTS)
def test_a_document_has_the_fields_of_its_table_and_no_others(heading):
    fields = documented(heading)
    assert len(fields) == len(set(fields)) >= 1
    assert set(printed(DOCUMENTS[heading]())) == set(fields)


def test_the_status_of_a_job_has_those_of_a_job_too():
    fields = documented("`producer status JOB`")
    assert set(printed(job_status())) == {*documented(JOB), *fields}


def test_every_section_of_the_page_is_one_of_these():
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    assert set(headings) == {*DOCUMENTS, "`producer status JOB`"}


def test_the_objects_in_a_document_have_the_fields_that_the_page_lists():
    status = printed(job_status())
    rung, event = status["rungs"][0], status["events"][0]
    assert list(rung) == described("`producer status JOB`", "rungs")
    assert list(event) == described("`producer status JOB`", "events")
    (current,) = printed(documents.PrintedWorker.of(WORKER))["current"]
    assert list(current) == described(WORKERS, "current")
    letter = DeadLetter(queue="q", worker="w", reason="r", message="m")
    assert list(printed(documents.PrintedLetter.of(letter))) == described(
        "`producer dead-letters`", "dead_letters"
    )
    row = Instability(row=1, id="a", length=2, seen={Rung.FP16: SEEN})
    (shown,) = printed(documents.QuarantineList(job="j", sequences=(row,)))["sequences"]
    assert list(shown) == described("`producer quarantine JOB`", "sequences")


def test_every_field_of_a_worker_s_entry_is_shown_but_for_what_only_programs_ask():
    assert set(WorkerInfo.model_fields) - {"keys", "staging"} == set(
        documents.PrintedWorker.model_fields
    )


def test_times_are_rfc_3339_in_utc_and_odd_ones_are_null():
    shown = printed(documents.PrintedWorker.of(WORKER))
    assert shown["started"] == "2023-11-14T22:13:20.500Z"
    assert datetime.fromisoformat(shown["started"]) == datetime.fromtimestamp(1_700_000_000.5, UTC)
    for odd in (float("nan"), float("inf"), 1e30):
        event = Event(event=EventKind.RETRY, time=odd)
        assert printed(documents.PrintedEvent.of(event))["time"] is None


def test_a_job_that_is_over_expires_and_an_open_one_does_not():
    keep = timedelta(days=1)
    open_job = documents.PrintedJob.of(progress(), keep)
    assert open_job.expires is None
    ended = progress(JobState.FINISHED).__class__(
        **{**vars(progress(JobState.FINISHED)), "ended": 1_700_000_000.0}
    )
    assert documents.PrintedJob.of(ended, keep).expires == datetime(
        2023, 11, 15, 22, 13, 20, tzinfo=UTC
    )
    assert documents.PrintedJob.of(ended, None).expires is None


def test_sizes_are_shown_if_they_were_asked_for():
    job = documents.PrintedJob.of(progress(), None, Size(3, 4000))
    assert (job.objects, job.bytes) == (3, 4000)


def test_a_look_that_redis_did_not_answer_has_no_counts():
    line = printed(documents.WatchLine.of("j", Observation(None, trouble="away"), ""))
    assert (line["state"], line["batches"], line["waits"]) == (None, None, "away")


def test_a_job_that_ended_at_a_time_that_nobody_noted_does_not_go_on():
    """Earlier versions did not note it."""
    job = replace(progress(JobState.FINISHED, tokens_done=9), started=10.0, seen=1e9)
    shown = printed(documents.PrintedJob.of(job, timedelta(days=1)))
    for name in ("ended", "expires", "elapsed_seconds", "tokens_per_second"):
        assert shown[name] is None
    ended = printed(documents.PrintedJob.of(replace(job, ended=20.0)))
    assert (ended["elapsed_seconds"], ended["tokens_per_second"]) == (20, 0.9)
    is_open = printed(documents.PrintedJob.of(replace(job, state=JobState.OPEN)))
    assert is_open["elapsed_seconds"] == 1e9
