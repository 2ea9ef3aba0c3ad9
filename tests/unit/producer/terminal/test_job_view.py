"""A job's progress as lines: they fit, they never go back, and say what there is to say."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from common.ledger.progress import JobState, Progress
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from producer.scheduling.observation import Observation
from producer.terminal.job_view import ASCII, STAGES, Glyphs, JobView, lines_of, text_of
from tests.support.jobs import progress

NOW = 1_000_000.0

READY = WorkerInfo(
    name="cuda0-1@host",
    model="esm2_t6_8M_UR50D",
    weights="0123456789abcdef",
    device="NVIDIA H200",
    precision=Rung.FP16,
    queues=("esm2_t6_8M_UR50D.fp16",),
)
LOADING = READY.model_copy(update={"weights": None, "stage": "hashing"})


def job(state: JobState = JobState.OPEN, **counts: int) -> Progress:
    return replace(progress(state, **counts), created=NOW - 200)


def view_of(*seen: Observation) -> JobView:
    view = JobView(began=NOW - 100)
    for each in seen:
        view.update(each)
    return view


def shown(view: JobView, width: int = 100, glyphs: Glyphs | None = None) -> list[str]:
    return [line.plain for line in lines_of(view, width, NOW, glyphs or Glyphs())]


def test_a_running_job_has_percent_times_and_speed_on_what_device_in_which_precision():
    running = job(batches_done=300, rows_fp16=12_000, rows_fp32=345, tokens_done=250_000)
    view = view_of(Observation(running, 1500.0, [READY, READY]))
    first, second = shown(view)
    assert first.strip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ") == (
        "━━━━━━━━━━──────────────────────────────  25 %  3 min 20 s elapsed · 8 min 20 s left"
    )
    assert second == (
        "  300/1,200 batches · 12,345/50,000 sequences · 1,500 tokens/s · fp16 on 2 x NVIDIA H200"
    )
    assert text_of(view, NOW) == (
        "25 % · 300/1,200 batches · 12,345/50,000 sequences · 1,500 tokens/s · "
        "fp16 on 2 x NVIDIA H200 · 3 min 20 s elapsed · 8 min 20 s left"
    )


def test_at_40_columns_everything_is_there_in_more_lines():
    running = job(batches_done=300, rows_fp16=12_000, tokens_done=250_000)
    assert shown(view_of(Observation(running, 1500.0, [READY])), 40)[1:] == [
        "  3 min 20 s elapsed · 8 min 20 s left",
        "  300/1,200 batches",
        "  12,000/50,000 sequences",
        "  1,500 tokens/s · fp16 on NVIDIA H200",
    ]


def test_a_job_of_one_big_batch_moves_within_it():
    one = replace(job(), batches=1, leased=1)
    percents = [
        view_of(Observation(one, workers=[READY], running_tokens=tokens)).percent
        for tokens in (0, 10_000, 500_000, 1_000_000)
    ]
    assert percents == ["0 %", "1 %", "50 %", "99 %"]
    done = Observation(job(JobState.FINISHED, tokens_done=1_000_000))
    assert view_of(done).percent == "100 %"


def test_a_job_with_quarantined_rows_ends_at_100_and_one_with_failed_batches_does_not():
    assert view_of(
        Observation(job(JobState.FINISHED, tokens_done=999_000, rows_quarantined=3))
    ).percent == ("100 %")
    failed = job(JobState.FINISHED, tokens_done=900_000, batches_failed=1)
    assert view_of(Observation(failed)).percent == "90 %"


@given(
    st.lists(
        st.one_of(
            st.none(), st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), st.just("reset")
        ),
        max_size=30,
    )
)
def test_it_never_goes_back(looks):
    view, before = JobView(began=NOW), 0.0
    for look in looks:
        match look:
            case None:
                view.update(Observation(None, trouble="Redis does not answer"))
            case "reset":  # Redis was emptied
                view.update(Observation(job(tokens_done=0)))
            case done, running:
                view.update(Observation(job(tokens_done=done), running_tokens=running))
        assert view.share >= before
        before = view.share
    view.update(Observation(job(JobState.FINISHED, tokens_done=5)))
    assert view.share == 1


TEXTS = st.text(max_size=200)
COUNTS = st.integers(0, 10**12)


@example(60, {}, None, "a\tb", None, True, "\t", False, Glyphs())
@given(
    width=st.integers(1, 200),
    counts=st.dictionaries(
        st.sampled_from(["batches_done", "rows_fp16", "rows_retried", "leases_lost"]), COUNTS
    ),
    speed=st.one_of(st.none(), st.floats(1e-6, 1e12)),
    device=TEXTS,
    stage=st.one_of(st.none(), TEXTS, st.sampled_from(list(STAGES))),
    loaded=st.booleans(),
    trouble=TEXTS,
    finished=st.booleans(),
    glyphs=st.sampled_from([Glyphs(), ASCII]),
)
def test_no_line_is_as_wide_as_the_terminal_and_each_is_one(
    width, counts, speed, device, stage, loaded, trouble, finished, glyphs
):
    update: dict[str, Any] = {"device": device, "stage": stage}
    worker = (READY if loaded else LOADING).model_copy(update=update)
    state = JobState.FINISHED if finished else JobState.OPEN
    found = replace(job(state), counts=Counter(counts))
    for seen in (Observation(found, speed, [worker]), Observation(None, trouble=trouble)):
        for line in lines_of(view_of(Observation(found), seen), width, NOW, glyphs):
            assert cell_len(line.plain) <= max(1, width - 1)
            assert line.plain.splitlines() in ([line.plain], [])
            assert not set(line.plain) & set("\t\x1b\r\x07")


def test_a_job_without_a_worker_waits_for_one():
    seen = Observation(job())
    assert shown(view_of(seen))[0].endswith(" waiting for a worker")
    assert shown(view_of(replace(seen, is_local=True)))[0].endswith(" starting the worker")


@pytest.mark.parametrize(("stage", "text"), [*STAGES.items(), (None, "loading the model")])
def test_a_job_whose_workers_all_load_their_model_says_what_they_do(stage, text):
    worker = LOADING.model_copy(update={"stage": stage})
    seen = Observation(job(), workers=[worker, worker], is_local=True)
    first, second = shown(view_of(seen))
    assert first[2:] == text
    assert second == (
        "  1 min 40 s elapsed · 0/1,200 batches · 0/50,000 sequences · fp16 on 2 x NVIDIA H200"
    )
    assert text_of(view_of(seen), NOW).startswith(f"0 % · {text} · 0/1,200 batches")


def test_a_job_that_can_begin_has_a_bar():
    for workers in ([READY], [LOADING, READY]):
        assert "0 %" in shown(view_of(Observation(job(), workers=workers)))[0]


@pytest.mark.parametrize("speed", [None, 500.0])
def test_a_finished_job_has_no_time_left_and_waits_for_nobody(speed):
    done = job(JobState.FINISHED, batches_done=1200, tokens_done=1_000_000)
    view = view_of(Observation(done, speed))
    text = "\n".join([*shown(view), text_of(view, NOW)])
    assert "left" not in text
    assert "worker" not in text
    assert shown(view)[0].startswith("✓ ━━━")


def test_what_went_wrong_is_counted_and_nothing_else():
    troubled = job(rows_retried=1234, rows_quarantined=5, leases_lost=2, batches_failed=1)
    view = view_of(Observation(troubled, None, [READY]))
    assert " · 1,234 retried · 5 quarantined · 2 requeued from lost workers · 1 batch failed" in (
        text_of(view, NOW)
    )
    assert "retried" not in text_of(view_of(Observation(job(), None, [READY])), NOW)


def test_trouble_is_told_below_what_was_known():
    view = view_of(Observation(job(tokens_done=250_000), 1500.0, [READY]))
    view.update(Observation(None, trouble="Redis does not answer (x\n); waiting for it"))
    assert shown(view)[-1] == r"  Redis does not answer (x\n); waiting for it"
    assert "25 %" in shown(view)[0]


def test_the_spinner_turns_and_ascii_is_enough_for_a_terminal_that_has_no_more():
    view = view_of(Observation(job(), workers=[LOADING]))
    pictures = {lines_of(view, 80, NOW + n / 8, ASCII)[0].plain[0] for n in range(4)}
    assert pictures == set("|/-\\")
    bar = view_of(Observation(job(tokens_done=505_000), 5.0, [READY]))
    assert all(line.isascii() for width in (40, 80) for line in shown(bar, width, ASCII))


def test_a_job_of_this_machine_counts_from_its_start_and_others_from_their_submission():
    seen = Observation(job(), workers=[READY])
    assert view_of(seen).times(NOW) == ["3 min 20 s elapsed"]
    assert view_of(replace(seen, is_local=True)).times(NOW) == ["1 min 40 s elapsed"]
