"""Watching: the line of progress, and the message at a job's end."""

import pytest
from rich.console import Console

from common.ledger.events import Event, EventKind
from common.ledger.progress import JobState
from common.ledger.speed import Speed
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from producer.scheduling.observation import Observation
from producer.terminal import watch
from producer.terminal.watch import display, say_event
from tests.support.jobs import manifest_of, progress

# --- speed --------------------------------------------------------------------------------------


def test_a_speed_is_that_between_the_first_look_and_the_last():
    speed = Speed(window=10)
    assert speed.update(100, 5000) is None
    assert speed.update(101, 5200) == 200
    assert speed.update(104, 5400) == 100


def test_a_speed_forgets_what_is_older_than_its_window():
    speed = Speed(window=10)
    for now in range(100):
        speed.update(now, 0)
    for now in range(100, 121):
        found = speed.update(now, 50 * (now - 99))
    assert found == 50


def test_a_speed_is_unknown_while_nothing_is_done():
    speed = Speed(window=10)
    speed.update(0, 0)
    assert speed.update(1, 100) == 100
    assert [speed.update(now, 100) for now in (20, 40)] == [None, None]


def test_a_speed_is_known_even_if_looks_are_further_apart_than_the_window():
    speed = Speed(window=1)
    speed.update(0, 0)
    assert speed.update(100, 1000) == 10
    assert speed.update(200, 3000) == 20


def test_a_speed_is_unknown_at_a_clock_that_stands_still_or_after_a_retry():
    speed = Speed()
    speed.update(5, 100)
    assert speed.update(5, 200) is None
    assert speed.update(6, 50) is None


# --- lines and bars -----------------------------------------------------------------------------


READY = WorkerInfo(
    name="cuda0-1@host",
    model="esm2_t6_8M_UR50D",
    weights="0123456789abcdef",
    device="GPU",
    precision=Rung.FP16,
    queues=("esm2_t6_8M_UR50D.fp16",),
)

JOB = manifest_of([3, 5]).job


def test_outside_a_terminal_trouble_and_the_end_are_lines(capsys):
    done = progress(JobState.FINISHED, batches_done=1200, tokens_done=1_000_000)
    with display(JOB, Console(width=200)) as show:
        show(Observation(None, trouble="Redis does not answer (it is loading); waiting for it"))
        show(Observation(None, trouble="not shown: too soon"))
        show(Observation(done))
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"{JOB}: Redis does not answer (it is loading); waiting for it"
    assert last.startswith(f"{JOB}: 100 % · 1,200/1,200 batches")


def test_outside_a_terminal_a_job_that_was_cancelled_has_a_last_line(capsys):
    with display(JOB, Console(width=200)) as show:
        show(Observation(progress(batches_done=300), workers=[READY]))
        show(Observation(progress(JobState.CANCELLED, batches_done=400), workers=[READY]))
    _, last = capsys.readouterr().out.splitlines()
    assert "400/1,200 batches" in last
    assert "GPU" not in last


def test_outside_a_terminal_there_is_a_line_every_30_seconds(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    with display(JOB, Console(width=200)) as show:
        for second in range(100):
            now[0] = second
            show(Observation(progress(tokens_done=10_000 * second), workers=[READY]))
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(" · ")[0] for line in shown] == [
        f"{JOB}: {percent} %" for percent in (0, 30, 60, 90)
    ]


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(term, monkeypatch, capsys):
    monkeypatch.setenv("TERM", term)
    with display(JOB, Console(width=200, force_terminal=True)) as show:
        show(Observation(progress(batches_done=300), workers=[READY]))
    shown = capsys.readouterr().out
    assert shown.startswith(f"{JOB}: 0 % · 300/1,200 batches")
    assert "\x1b" not in shown


def test_on_a_terminal_the_text_is_below_a_bar(capsys):
    with display(JOB, Console(width=200, force_terminal=True, legacy_windows=False)) as show:
        show(Observation(progress(batches_done=300, tokens_done=500_000), workers=[READY]))
    shown = capsys.readouterr().out
    assert "━━━━" in shown
    assert "50 %" in shown
    assert "300/1,200 batches" in shown


# --- why a job waits ----------------------------------------------------------------------------


def test_the_reason_why_a_job_waits_is_told_once_after_a_while(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])

    def told_at(*times: float, workers: tuple[WorkerInfo, ...] = ()) -> str:
        for now[0] in times:
            show(Observation(progress(), workers=workers))
        return capsys.readouterr().err

    with display(JOB, Console(width=200), patience=60) as show:
        assert told_at(0, 59) == ""
        assert told_at(59.5, workers=(READY,)) == ""
        assert told_at(60, 119) == ""
        told = told_at(120, 121, 500)
    reason = "no worker serves m.fp16 yet. Start one: worker start --model m"
    assert told == f"{JOB} waits: {reason}\n"


# --- requeued batches ----------------------------------------------------------------------


@pytest.mark.parametrize(("worker", "end"), [(None, "."), ("cuda0-1@host", " (cuda0-1@host).")])
def test_what_was_lost_is_told_in_a_line(capsys, worker, end):
    say_event(
        Event(
            event=EventKind.LEASE_LOST,
            job=JOB,
            batch=7,
            rung=Rung.FP16,
            worker=worker,
            detail="its worker disappeared; requeued",
        )
    )
    told = f"Batch 7 of {JOB}, fp16: its worker disappeared; requeued{end}\n"
    assert capsys.readouterr().err == told


def test_progress_in_a_python_session_is_one_line():
    assert repr(progress(batches_done=7, batches_at_fp16=7, rows_fp16=25)) == (
        "Progress(in-0123: running, 7/1,200 batches, 25/50,000 sequences)"
    )
    found = progress(JobState.FINISHED, batches_failed=2, rows_quarantined=3)
    assert repr(found).endswith("0/50,000 sequences, 3 quarantined, 2 batches failed)")
