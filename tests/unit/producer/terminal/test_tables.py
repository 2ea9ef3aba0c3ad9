"""Tables: a job's counters, its ladder if rows were retried, and problems."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from common.job.manifest import Manifest
from common.ledger.events import Event, EventKind
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState, Progress
from common.rungs import Rung
from common.wire.dead_letters import DeadLetter
from common.wire.messages import BatchResult
from producer.cli.watch import exit_if_batches_failed
from producer.scheduling.waiting import SHOWN, first_lines, problems
from producer.terminal.report import report_quarantined
from producer.terminal.tables import (
    output_console,
    print_dead_letters,
    print_events,
    print_job,
    print_jobs,
    print_table,
    print_unreadable,
    state_of,
)
from tests.support.jobs import SEEN, failed, manifest_of, ok, progress, retry_after, unstable

MANIFEST = manifest_of([3, 5])
QUEUE = "random.esm2_t6_8M_UR50D.fp16"


def printed(
    job: Progress,
    queued: Mapping[Rung, int] | None = None,
    results: Sequence[BatchResult] = (),
) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        print_job(console, job, {**dict.fromkeys(job.queues, 0), **(queued or {})}, list(results))
    return capture.get()


def cells(text: str) -> list[list[str]]:
    """Return the words of a table, row by row."""
    rows = [line.replace("┃", "│").strip("│ ").split("│") for line in text.splitlines()]
    return [[cell.strip() for cell in row] for row in rows if len(row) > 1]


# --- tables and terminals ------------------------------------------------------------------------


WORDS = st.text(alphabet="abcdefgh", min_size=1, max_size=60)
CELLS = st.lists(WORDS, max_size=4).map(" ".join)


@given(
    width=st.sampled_from([20, 40, 80, 200]),
    rows=st.lists(st.tuples(WORDS, CELLS, CELLS, CELLS), max_size=3),
)
def test_a_table_of_any_width_cuts_no_first_column_and_leaves_nothing_out(width, rows):
    console = Console(width=width)
    with console.capture() as capture:
        print_table(console, ("job", "x", "y", "z"), rows)
    lines = capture.get().splitlines()
    for first, *others in rows:
        assert any(line.strip("│ ").split("│")[0].strip() == first for line in lines)
        for letter in "abcdefgh":
            assert capture.get().count(letter) >= sum(cell.count(letter) for cell in others)
    if len(rows) == 1 and all(len(word) < 10 for cell in rows[0] for word in cell.split()):
        assert width < 80 or "┃ job" in capture.get()  # a table, where it fits


@pytest.mark.parametrize("width", [40, 80])
def test_one_long_name_hides_no_column(width):
    jobs = [replace(progress(), job=name) for name in ("a-0123", "long_name_" * 7 + "-0123")]
    console = Console(width=width)
    with console.capture() as capture:
        print_jobs(console, jobs)
    shown = capture.get()
    assert all(job.job in shown for job in jobs)
    assert shown.count("queued") == shown.count("0/50,000") == shown.count("1970-01-01") == 2


# --- one job ------------------------------------------------------------------------------------


def test_a_job_is_shown_with_its_counters():
    job = progress(
        batches_done=300,
        rows_fp16=12_000,
        rows_fp32=345,
        rows_retried=350,
        rows_quarantined=5,
        batches_failed=1,
    )
    shown = dict(cells(printed(job, {Rung.FP16: 7})))
    assert shown["batches"] == "300 of 1,200 done, 0 running"
    assert shown["queue"] == "m.fp16: 7 waiting"
    assert shown["sequences"] == "12,345 of 50,000"
    assert shown["by precision"] == "12,000 fp16, 345 fp32"
    assert shown["retried"] == "350 sequences at a higher rung"
    assert shown["quarantined"] == "5 sequences without an embedding"
    assert shown["failed"] == "1 batch"


@pytest.mark.parametrize("counts", [{}, {"embedded_at_fp16": 12_000, "batches_at_fp16": 300}])
def test_a_job_in_which_everything_was_finite_has_no_ladder_to_show(counts):
    assert "not finite" not in printed(progress(**counts))


def test_a_job_in_which_something_was_not_finite_shows_its_ladder_rung_by_rung():
    job = progress(
        batches_at_fp16=300,
        embedded_at_fp16=12_000,
        unstable_at_fp16=1_050,
        batches_at_selective_fp32=40,
        embedded_at_selective_fp32=1_000,
        unstable_at_selective_fp32=50,
        batches_at_fp32=3,
        embedded_at_fp32=30,
        unstable_at_fp32=20,
    )
    table = cells(printed(job, {Rung.FP16: 1_234, Rung.SELECTIVE_FP32: 2}))
    header = ["rung", "queued", "batches", "sequences embedded", "not finite", "retried at"]
    assert table[table.index(header) :] == [
        header,
        ["fp16", "1,234", "300", "12,000", "1,050", "selective_fp32"],
        ["selective_fp32", "2", "40", "1,000", "50", "fp32"],
        ["fp32", "0", "3", "30", "20", "quarantine"],
    ]


@pytest.mark.parametrize(
    ("first", "rungs"),
    [
        (Rung.BF16, [["bf16", "fp32"], ["fp32", "quarantine"]]),
        (Rung.FP32, [["fp32", "quarantine"]]),
    ],
)
def test_a_ladder_has_the_rungs_of_its_job_alone(first, rungs):
    job = progress(queue=f"m.{first}", **{f"unstable_at_{first}": 1})
    table = cells(printed(job))
    assert [[row[0], row[-1]] for row in table if len(row) == 6][1:] == rungs


def test_the_ladder_of_a_real_ledger_adds_up(ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    ledger.results.complete(ok(MANIFEST.batch(0)))
    first = unstable(MANIFEST.batch(1), 4, 5, 6)
    second = unstable(retry_after(MANIFEST, first), 6)
    last = unstable(retry_after(MANIFEST, second), 6)
    for result in (first, second, last):
        ledger.results.complete(result)
    job = ledger.jobs.progress(MANIFEST.job)
    text = printed(job, results=ledger.results.all(MANIFEST.job))
    assert [row for row in cells(text) if len(row) == 6][1:] == [
        ["fp16", "0", "2", "5", "3", "selective_fp32"],
        ["selective_fp32", "0", "1", "2", "1", "fp32"],
        ["fp32", "0", "1", "0", "1", "quarantine"],
    ]
    assert text.splitlines()[-1] == f"quarantined: {last.unstable[0]}"


# --- dead letters and events --------------------------------------------------------------------


def test_dead_letters_are_named_and_counted_whatever_is_in_them():
    letter = DeadLetter(time=0, queue="m.fp16", worker="w", reason="[red]it is 3[/]", message="3")
    console = Console(width=200)
    with console.capture() as capture:
        print_dead_letters(console, [letter], 1234)
    _, (_, queue, reason) = cells(capture.get())
    assert (queue, reason) == ("m.fp16", "[red]it is 3[/]")
    assert "1,234 messages that no worker could read" in capture.get()
    assert "producer dead-letters --clear" in capture.get()


def test_the_latest_events_of_a_job_are_shown_and_the_others_counted(ledger):
    ledger.jobs.create(MANIFEST, QUEUE)
    for number in range(7):
        detail = f"[red]{number}[/]"
        ledger.events.add(
            Event(
                time=0,
                event=EventKind.LEASE_LOST,
                job=MANIFEST.job,
                batch=number,
                rung=Rung.FP16,
                worker="w",
                detail=detail,
            )
        )
    console = Console(width=200)
    with console.capture() as capture:
        print_events(
            console, ledger.events.latest(MANIFEST.job, 2), ledger.events.count(MANIFEST.job)
        )
    _, *shown = [row[1:] for row in cells(capture.get())]
    assert shown == [["lease_lost", str(n), "fp16", "w", f"[red]{n}[/]"] for n in (6, 5)]
    assert capture.get().splitlines()[-1] == "… and 5 earlier events"


def test_an_event_of_a_whole_job_has_no_batch_to_show():
    console = Console(width=200)
    with console.capture() as capture:
        print_events(console, [Event(event=EventKind.DEAD_LETTER, job="j", detail="why")], 1)
    _, (_, *shown) = cells(capture.get())
    assert shown == ["dead_letter", "", "", "", "why"]
    assert "earlier" not in capture.get()


# --- what went wrong ----------------------------------------------------------------------------


def test_failed_batches_and_quarantined_rows_have_a_line_each():
    batch = MANIFEST.batch(0)
    quarantined = unstable(batch, 1, 2, precision=Rung.FP32)
    assert problems([quarantined, failed(MANIFEST.batch(1))]) == [
        "quarantined: row 1 'r1' (10 letters): fp32: 3 NaN, 1 Inf, finite values from -6.55e+04 "
        "to 2.5",
        "quarantined: row 2 'r2' (10 letters): fp32: 3 NaN, 1 Inf, finite values from -6.55e+04 "
        "to 2.5",
        "batch 1 (fp16) failed: ValueError: no",
    ]


def test_a_retry_that_failed_is_named_with_its_rung():
    retry = retry_after(MANIFEST, unstable(MANIFEST.batch(1)))
    assert problems([failed(retry)]) == ["batch 1 (selective_fp32) failed: ValueError: no"]


def test_rows_that_will_be_retried_are_no_problem():
    assert problems([unstable(MANIFEST.batch(0), 0, 1)]) == []


def test_rows_that_stopped_their_job_are_named_once():
    stopping = unstable(MANIFEST.batch(1), 4, 6, stops_job=True)
    assert problems([unstable(MANIFEST.batch(0), 0), stopping]) == [
        f"not finite: row 4 'r4' (10 letters): fp16: {SEEN}",
        f"not finite: row 6 'r6' (10 letters): fp16: {SEEN}",
    ]


@pytest.mark.parametrize("count", [0, 1, SHOWN - 1, SHOWN])
def test_a_few_lines_are_all_shown(count):
    assert first_lines(list(range(count))) == [str(number) for number in range(count)]


@pytest.mark.parametrize(("count", "more"), [(SHOWN + 1, "1"), (SHOWN + 1234, "1,234")])
def test_of_many_lines_the_first_are_shown_and_the_rest_counted(count, more):
    *first, last = first_lines(list(range(count)))
    assert first == [str(number) for number in range(SHOWN)]
    assert last == f"… and {more} more"


def test_of_many_problems_the_first_are_shown():
    manifest = manifest_of([1] * (SHOWN + 5))
    lines = problems(map(failed, map(manifest.batch, range(SHOWN + 5))))
    assert len(lines) == SHOWN + 1
    assert lines[-1] == "… and 5 more"


def test_an_open_job_is_queued_until_one_of_its_batches_starts():
    assert state_of(progress()) == "queued"
    assert state_of(replace(progress(), leased=1)) == "running"
    assert state_of(progress(batches_done=1)) == "running"


def test_a_finished_job_says_whether_batches_failed():
    assert state_of(progress(JobState.FINISHED)) == "finished"
    assert state_of(progress(JobState.FINISHED, batches_failed=1)) == "finished with failures"
    assert state_of(progress(JobState.STOPPED, batches_failed=1)) == "stopped"


# --- the end of a job ---------------------------------------------------------------------------


@pytest.fixture
def finished(ledger) -> Manifest:
    """A job with a failed retry and a quarantined row."""
    ledger.jobs.create(MANIFEST, QUEUE)
    first = unstable(MANIFEST.batch(0), 1)
    ledger.results.complete(first)
    ledger.results.complete(failed(retry_after(MANIFEST, first)))
    ledger.results.complete(unstable(MANIFEST.batch(1), 6, precision=Rung.FP32))
    return MANIFEST


def test_failures_are_named_and_end_with_code_1(ledger: Ledger, finished, capsys):
    with pytest.raises(SystemExit) as caught:
        exit_if_batches_failed(ledger, finished)
    assert caught.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "batch 0 (selective_fp32) failed: ValueError: no",
        "1 of 2 batches failed. To try again: job.retry()",
    ]


def test_quarantined_rows_are_named_and_are_no_failure(ledger: Ledger, finished, capsys):
    report_quarantined(ledger, finished)
    assert capsys.readouterr().err.startswith("quarantined: row 6 'r6' (10 letters): fp32: ")


def test_a_job_in_which_nothing_went_wrong_ends_without_a_word(ledger: Ledger, capsys):
    ledger.jobs.create(MANIFEST, QUEUE)
    for index in range(2):
        ledger.results.complete(ok(MANIFEST.batch(index)))
    exit_if_batches_failed(ledger, MANIFEST)
    report_quarantined(ledger, MANIFEST)
    assert capsys.readouterr().err == ""


def test_the_reason_of_an_unreadable_entry_is_one_line_whatever_is_in_it(capsys):
    print_unreadable(output_console(), ["a result [/x] of\nanother \x1b[2Jversion " + "x" * 50])
    assert capsys.readouterr().out.splitlines() == [
        r"a result [/x] of\nanother \x1b[2Jversion " + "x" * 50
    ]
