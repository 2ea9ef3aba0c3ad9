"""The options of ``producer flower``, and what its list shows of a task."""

import copy
from pathlib import Path

import pytest
from celery.events.state import State, Task
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.wire.celery_app import ShownBatch
from producer.cli.flower import FlowerSettings, logins_of
from tests.support.jobs import manifest_of

pytest.importorskip("flower", reason="needs the extra flower")

from producer.cli.flower_pages import shown_task

words = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1)

# --- logins ----------------------------------------------------------------------------------


@given(st.lists(st.tuples(words.filter(lambda user: ":" not in user), words), min_size=1))
def test_each_line_is_a_login_whose_password_may_have_any_visible_ascii(pairs):
    logins = tuple(f"{user}:{password}" for user, password in pairs)
    assert logins_of("it", "\n".join(logins)) == logins
    assert logins_of("it", "\r\n\r\n".join(logins) + "\n") == logins


@pytest.mark.parametrize(
    "text", ["", "\n", "s3cret", "s3cret:", ":s3cret", "a:b\ns3cret", "ü:s3cret", "a:s3cret\u00fc"]
)
def test_what_is_no_login_is_refused_and_not_quoted(text):
    with pytest.raises(UserError, match="it: not USER:PASSWORD") as refused:
        logins_of("it", text)
    assert "s3cret" not in str(refused.value)


def test_a_file_goes_before_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRNUCPRO_FLOWER_LOGIN", "a:from the variable")
    assert FlowerSettings().logins() == ("a:from the variable",)
    file = Path(tmp_path, "logins")
    file.write_text("b:from the file\n")
    monkeypatch.setenv("VIRNUCPRO_FLOWER_LOGIN_FILE", str(file))
    assert FlowerSettings().logins() == ("b:from the file",)
    file.write_bytes(b"\xff:\xff")
    with pytest.raises(UserError, match="logins: not USER:PASSWORD"):
        FlowerSettings().logins()
    assert "variable" not in repr(FlowerSettings())


# --- tasks -----------------------------------------------------------------------------------

BATCH = ShownBatch.of(manifest_of([1, 312]).batch(1))


def task_after(*events: tuple[str, dict[str, object]]) -> Task:
    """Return what the list shows of a task of which Flower heard these events."""
    state = State()
    for number, (kind, fields) in enumerate(events):
        about = {"uuid": "u", "hostname": "w", "clock": number, "timestamp": 100.0 + number}
        state.event({"type": f"task-{kind}", "local_received": 0, **about, **fields})
    return shown_task(copy.copy(state.tasks["u"]))


RECEIVED = ("received", {"name": "virnucpro.embed", "args": "", "kwargs": str(BATCH)})
STARTED = ("started", {})


def test_a_task_is_shown_by_its_job_and_its_batch():
    task = task_after(RECEIVED, STARTED)
    assert (task.name, task.kwargs, task.state, task.result) == (
        BATCH.job,
        "batch 1, fp16, 312 rows, 3,744 tokens",
        "STARTED",
        None,
    )
    retry = BATCH.model_copy(update={"rung": "selective_fp32", "rows": 1, "tokens": None})
    task = task_after(("received", {**RECEIVED[1], "kwargs": str(retry)}))
    assert task.kwargs == "batch 1, selective_fp32, 1 row"


def test_a_failed_task_shows_its_error_as_its_result():
    task = task_after(RECEIVED, STARTED, ("failed", {"exception": "failed: no", "traceback": None}))
    assert (task.state, task.result) == ("FAILURE", "failed: no")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("failed: s3://bucket/job/2.fasta is damaged", "failed: …/2.fasta is damaged"),
        ("failed: /srv/store/x.h5: no space left", "failed: …/x.h5: no space left"),
        ("failed: 3/4 of https://example.org", "failed: 3/4 of https://example.org"),
    ],
)
def test_the_list_has_the_names_of_files_without_their_folders(error, shown):
    task = task_after(RECEIVED, STARTED, ("failed", {"exception": error}))
    assert task.result == shown
    assert task.exception == error  # on the task's own page


def test_a_requeued_task_is_shown_as_such_until_it_starts_again():
    rejected = ("rejected", {"requeue": True, "result": "requeued: no store"})
    task = task_after(RECEIVED, STARTED, rejected)
    assert (task.state, task.result) == ("REQUEUED", "requeued: no store")
    assert task_after(RECEIVED, STARTED, rejected, RECEIVED, STARTED).state == "STARTED"
    again = task_after(
        *(RECEIVED, STARTED, rejected, RECEIVED, STARTED),
        ("succeeded", {"result": "done 312 rows", "runtime": 1.0}),
    )
    assert (again.state, again.result) == ("SUCCESS", "done 312 rows")


@pytest.mark.parametrize("kwargs", [None, "", "{}", "{'job': 1}", "[" * 10_000, "1/0", "{'a': {}}"])
def test_a_task_of_another_program_is_shown_as_it_is(kwargs):
    task = task_after(("received", {"name": "tasks.add", "args": "(1, 2)", "kwargs": kwargs}))
    assert (task.name, task.kwargs) == ("tasks.add", kwargs)
