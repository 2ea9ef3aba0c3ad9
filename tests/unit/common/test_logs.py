"""Logs of long-running commands: each line of JSON is one object, and no login is in any."""

import json
import logging
import os
import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import logs
from common.ledger.events import Event, EventKind, log_event
from common.logs import JsonFormatter
from tests.support.processes import clean_environment

FORGED = 'x\n2026-01-01 ERROR forged\r\x1b[2J\u2028\u202e{"event":"failed"}\x85'


def record(message: str, *arguments: object, error: Exception | None = None, **extra: object):
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("celery", logging.INFO, "f.py", 1, message, arguments, info)
    vars(made).update(extra)
    return made


def fields(made: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter().format(made)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    return json.loads(line)


def in_a_process(script: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", f"import logging, sys\nfrom common import logs\n{script}"],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


@given(st.text())
def test_a_record_is_one_line_without_control_characters_in_its_fields(text):
    message = fields(record("%s", text))["message"]
    assert not any(char in message for char in "\r\n\x1b\u2028\u202e\x85")


def test_a_record_has_its_time_level_and_logger():
    found = fields(record("said %d", 3))
    assert (found["level"], found["logger"], found["message"]) == ("info", "celery", "said 3")
    assert str(found["time"]).endswith("Z")
    assert datetime.fromisoformat(str(found["time"])).tzinfo is not None


def test_a_traceback_is_one_field():
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        found = fields(record("failed", error=error))
    assert str(found["exception"]).startswith("Traceback (most recent call last):\n")
    assert "\x1b" not in str(found["exception"])
    assert "\\x1b[2J" in str(found["exception"])


@pytest.mark.parametrize("login", ["s3cret", "u:s3cret/w", "u:p/s3cret", "u:p@s3cret"])
def test_no_url_shows_a_login_in_any_field(login):
    url = f"redis://{login}@host:6379//."
    found = json.dumps(fields(record("to %s", url, error=ValueError(url), stack_info=url)))
    assert "s3cret" not in found
    assert found.count("redis://***@host:6379") == 3


def test_a_record_whose_arguments_do_not_fit_is_logged_nonetheless():
    assert fields(record("%d", "three"))["message"] == "%d ('three',) (TypeError)"


def test_what_a_thread_works_on_is_in_its_lines():
    with logs.about(job="j", batch=0):
        assert fields(record("x"))["batch"] == 0
        assert fields(record("x", batch=7))["batch"] == 7
        with logs.about(batch=1):
            assert (fields(record("x"))["job"], fields(record("x"))["batch"]) == ("j", 1)
    assert "job" not in fields(record("x"))


def test_an_event_is_one_line_of_json_in_a_log_of_text_and_fields_in_one_of_json(caplog):
    event = Event(event=EventKind.FAILED, job="j", batch=0, worker="w", detail="why")
    log_event(logging.getLogger("producer"), event)
    [made] = caplog.records
    assert json.loads(made.getMessage())["detail"] == "why"
    found = fields(made)
    assert [found[name] for name in ("event", "job", "batch", "worker", "message")] == [
        *("failed", "j", 0, "w", "failed: why")
    ]


# --- whole processes ------------------------------------------------------------------------------

EVERYTHING = """
import os, threading, warnings
logs.start_logs("tester", "json", "debug")
logging.getLogger("producer.x").debug("debug of ours")
logging.getLogger("botocore").debug("debug of a library")
print("printed é")
sys.stderr.write("written\\r50%\\n")
warnings.warn("warned")
threading.Thread(target=lambda: 1 / 0, name="t").start()
logs.say("said in a handler of a signal")
sys.stdout.flush()
raise ValueError("redis://u:s3cret@h:1 ended it")
"""


def test_everything_that_a_process_writes_is_json():
    done = in_a_process(EVERYTHING)
    assert (done.returncode, done.stdout) == (1, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["process"] for line in lines} == {"tester"}
    said = [line["message"] for line in lines]
    for text in ("debug of ours", "printed é", "written", "50%", "said in a handler of a signal"):
        assert text in said
    assert "debug of a library" not in said
    assert any("UserWarning: warned" in text for text in said)
    assert any("ZeroDivisionError" in line.get("exception", "") for line in lines)
    assert (lines[-1]["level"], lines[-1]["message"]) == (
        *("critical", "This process ends: redis://***@h:1 ended it"),
    )
    assert "s3cret" not in done.stderr


def test_a_log_of_text_has_the_time_and_hides_logins_in_tracebacks_that_end_a_process():
    done = in_a_process('logs.start_logs("tester")\nraise ValueError("redis://u:s3cret@h:1")')
    first, *others = done.stderr.splitlines()
    assert datetime.fromisoformat(first[:19])
    assert first[20:].endswith("CRITICAL This process ends: redis://***@h:1")
    assert all(line.startswith("  ") for line in others)
    assert "s3cret" not in done.stderr


UNWRITTEN = """
import sys
logs.start_logs("tester")
for _ in range(3):
    logging.getLogger("producer").warning("x" * 100_000)
logs.say("said in a handler of a signal")
if logs.are_json():
    print("printed")
    sys.stderr.write("written\\n")
    sys.stderr.flush()
open(sys.argv[1], "w").close()
"""


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("stderr", [full, without_reader])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_process_goes_on_if_its_log_cannot_be_written(log_format, stderr, tmp_path):
    script = f"import logging\nfrom common import logs\n{UNWRITTEN}"
    opened = stderr()
    try:
        subprocess.run(
            [sys.executable, "-c", script, tmp_path / "went on"],
            env=clean_environment(VIRNUCPRO_LOG_FORMAT=log_format),
            stderr=opened,
            check=False,
            timeout=60,
        )
    finally:
        os.close(opened)
    assert (tmp_path / "went on").exists()


def test_a_record_whose_arguments_do_not_fit_is_in_a_log_of_text():
    done = in_a_process("logs.start_logs('tester')\nlogging.getLogger('x').warning('%d', 'three')")
    assert "WARNING %d ('three',) (TypeError)" in done.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"VIRNUCPRO_LOG_FORMAT": "xml"}, "--log-format (or VIRNUCPRO_LOG_FORMAT): xml is not"),
        ({"VIRNUCPRO_LOG_LEVEL": ""}, "--log-level (or VIRNUCPRO_LOG_LEVEL):  is not 'debug'"),
    ],
)
def test_another_value_is_refused(variables, message):
    assert message in in_a_process('logs.start_logs("tester")', **variables).stderr


def test_a_level_hides_lines_below_it_and_a_child_gets_format_and_level():
    done = in_a_process(
        "logs.start_logs('tester')\nlogging.getLogger('producer').info('hidden')\n"
        "sys.stdout = sys.__stdout__\nprint(logs.as_environment())",
        VIRNUCPRO_LOG_FORMAT="JSON",
        VIRNUCPRO_LOG_LEVEL="Warning",
    )
    assert done.stderr == ""
    assert "'VIRNUCPRO_LOG_FORMAT': 'json', 'VIRNUCPRO_LOG_LEVEL': 'warning'" in done.stdout
