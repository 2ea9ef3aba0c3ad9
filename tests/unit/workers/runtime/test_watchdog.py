"""The watchdog: it finds the hanging thread, reports it, and ends the process."""

import re
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.processes import clean_environment
from workers.process.supervisor import GRACE_SECONDS
from workers.runtime import watchdog
from workers.runtime.watchdog import (
    DRAIN_SECONDS,
    EXIT_HUNG,
    LAST_SECONDS,
    Activity,
    describe,
    limit,
    overdue,
)

moments = st.floats(0, 1e6)
activities = st.lists(
    st.builds(
        Activity, st.just("fetch"), st.integers(1, 4), moments, moments | st.just(float("inf"))
    ),
    max_size=8,
)


@given(activities, moments)
def test_nothing_is_overdue_before_its_time_and_something_is_after(doing, now):
    late = overdue(doing, now)
    assert (late is not None) == any(now > a.began + a.seconds for a in doing)


@given(activities, moments)
def test_the_one_that_hangs_longest_is_to_blame(doing, now):
    late = overdue(doing, now)
    if late is not None:
        assert all(late.deadline <= a.deadline for a in doing)


@given(activities, moments, moments)
def test_what_is_overdue_stays_so_until_it_ends(doing, now, later):
    late = overdue(doing, now)
    if late is not None:
        assert overdue(doing, now + later) is late
        doing.remove(late)
        assert overdue(doing, now) is not late


@given(activities)
def test_what_has_no_limit_is_never_overdue(doing):
    late = overdue(doing, float("inf"))
    assert late is None or late.seconds < float("inf")


def test_a_stage_is_watched_until_its_body_ends():
    with limit("fetch", 5):
        [here] = watchdog._activities
        assert (here.name, here.seconds, here.thread) == ("fetch", 5, threading.get_ident())
    assert not watchdog._activities


def test_a_stage_whose_body_raised_is_no_longer_watched():
    with pytest.raises(KeyError), limit("fetch", 5):
        raise KeyError
    assert not watchdog._activities


def test_every_stage_has_its_own_time_however_many_there_are():
    with limit("batch 3"):
        for _ in range(3):
            with limit("pack", 0.05):
                time.sleep(0.03)
                assert overdue(watchdog._activities, time.monotonic()) is None


def test_a_report_says_what_each_thread_does_and_where_in_the_code_it_is():
    def wait_inside() -> None:
        with limit("batch 3"), limit("launch", 5):
            started.set()
            stop.wait()

    started, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=wait_inside)
    thread.start()
    started.wait()
    [batch, *_] = watchdog._activities
    report = describe(watchdog._activities, batch.began + 7.0)
    stop.set()
    thread.join()
    assert "batch 3 for 7 s, launch for 7 s:\n" in report
    assert "in wait_inside" in report


def test_a_process_has_time_to_hand_its_batches_back_before_it_is_killed():
    assert DRAIN_SECONDS + LAST_SECONDS < GRACE_SECONDS


def end_of_process(script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script that its watchdog should end."""
    setup = (
        "import logging, threading, time\n"
        "from workers.runtime import watchdog\n"
        "logging.basicConfig()\n"
        "watchdog.DRAIN_SECONDS = watchdog.LAST_SECONDS = watchdog.LOOK_SECONDS = 0.2\n"
        "guard = watchdog.Watchdog()\n"
        "guard.start()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", setup + script],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_thread_that_hangs_ends_the_process_and_hands_nothing_back():
    ended = end_of_process(
        "def hang():\n"
        "    with watchdog.limit('launch', 0.5): threading.Event().wait()\n"
        "guard._hand_back = lambda: print('handed back', flush=True)\n"
        "thread = threading.Thread(target=hang)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    assert ended.returncode == EXIT_HUNG
    assert "'launch' takes longer than 0.5 s" in ended.stderr
    assert "handed back" not in ended.stdout


def test_a_process_that_does_not_end_when_told_to_hands_back_and_ends():
    ended = end_of_process(
        "guard.drain(lambda: print('handed back', flush=True))\ntime.sleep(60)\n"
    )
    assert (ended.returncode, ended.stdout) == (EXIT_HUNG, "handed back\n")
    assert "told to end 0.2 s ago" in ended.stderr


def test_stacks_keep_their_lines_in_the_log():
    ended = end_of_process(
        "from common.streams import log_to_stderr\n"
        "log_to_stderr(logging.INFO, '%(levelname)s %(message)s')\n"
        "def hang():\n"
        "    with watchdog.limit('launch', 0.5): threading.Event().wait()\n"
        "thread = threading.Thread(target=hang)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    first, second, *stack = ended.stderr.splitlines()
    assert first.startswith("CRITICAL 'launch' takes longer than 0.5 s")
    assert re.fullmatch(r"  launch for \d+ s:", second)
    assert any("in hang" in line for line in stack)
    assert all(line.startswith("  ") for line in stack)
    assert "\\n" not in ended.stderr


@pytest.mark.parametrize("last_words", ["threading.Event().wait()", "1 / 0"])
def test_the_process_ends_though_its_last_words_hang_or_fail(last_words):
    ended = end_of_process(f"guard.drain(lambda: {last_words})\ntime.sleep(60)\n")
    assert ended.returncode == EXIT_HUNG
