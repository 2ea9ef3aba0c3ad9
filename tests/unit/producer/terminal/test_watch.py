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
from producer.terminal.watch import describe, display, duration, say_event
from tests.support.jobs import manifest_of, progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (18_420, "5 h 07 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations_are_as_people_say_them(seconds, text):
    assert duration(seconds) == text


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


# --- a line -------------------------------------------------------------------------------------


READY = WorkerInfo(
    name="cuda0-1@host",
    model="esm2_t6_8M_UR50D",
    weights="0123456789abcdef",
    device="GPU",
    precision=Rung.FP16,
    queues=("esm2_t6_8M_UR50D.fp16",),
)
LOADING = READY.model_copy(update={"weights": None})


def test_a_job_that_runs_has_batches_sequences_speed_and_time_to_go():
    running = progress(batches_done=300, rows_fp16=12_000, rows_fp32=345, tokens_done=250_000)
    assert describe(running, 1500.0, [READY, READY]) == (
        "300/1,200 batches · 12,345/50,000 sequences · 1,500 tokens/s · ETA 8 min 20 s"
    )


def test_a_job_without_a_worker_waits_for_one():
    assert describe(progress(), None, []) == (
        "0/1,200 batches · 0/50,000 sequences · waiting for a worker"
    )


def test_a_job_that_has_not_begun_says_how_many_workers_there_are():
    assert describe(progress(), None, [READY] * 3).endswith(" · 3 workers")


def test_a_job_whose_workers_all_load_their_model_says_so():
    assert describe(progress(), None, [LOADING, LOADING]).endswith(" · loading the model")
    assert describe(progress(), None, [LOADING, READY]).endswith(" · 2 workers")


@pytest.mark.parametrize("speed", [None, 500.0])
def test_a_finished_job_has_no_time_to_go_and_waits_for_nobody(speed):
    done = progress(JobState.FINISHED, batches_done=1200, tokens_done=1_000_000)
    line = describe(done, speed, [])
    assert "ETA" not in line
    assert "worker" not in line


def test_what_went_wrong_is_counted():
    troubled = progress(
        rows_retried=1234,
        rows_retried_again=99,
        rows_quarantined=5,
        leases_lost=2,
        batches_failed=1,
    )
    assert describe(troubled, None, [READY]).endswith(
        " · 1,234 retried · 5 quarantined · 2 requeued from lost workers · 1 batch failed"
    )


def test_what_did_not_go_wrong_is_not_spoken_of():
    line = describe(progress(batches_done=300, rows_fp16=12_000), None, [READY])
    assert line == "300/1,200 batches · 12,000/50,000 sequences · 1 worker"


JOB = manifest_of([3, 5]).job


def test_outside_a_terminal_trouble_and_the_end_are_lines(capsys):
    done = progress(JobState.FINISHED, batches_done=1200, tokens_done=1_000_000)
    with display(JOB, Console(width=200)) as show:
        show(Observation(None, trouble="Redis does not answer (it is loading); waiting for it"))
        show(Observation(None, trouble="not shown: too soon"))
        show(Observation(done))
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"{JOB}: Redis does not answer (it is loading); waiting for it"
    assert last.startswith(f"{JOB}: 1,200/1,200 batches")


def test_on_a_terminal_the_text_is_beside_a_bar(capsys):
    with display(JOB, Console(width=200, force_terminal=True)) as show:
        show(Observation(progress(batches_done=300), workers=[READY]))
    assert "300/1,200 batches" in capsys.readouterr().out


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


@pytest.mark.parametrize("width", [80, 40])
def test_the_progress_line_wraps_on_a_narrow_terminal(width):
    console = Console(width=width, force_terminal=True, color_system=None)
    job = progress(batches_done=300, rows_fp16=12_000, rows_retried=3)
    with console.capture() as capture, display("j", console) as show:
        show(Observation(job, 12_345.0))
    shown = " ".join(capture.get().split())
    assert "…" not in shown
    assert "3 retried" in shown
