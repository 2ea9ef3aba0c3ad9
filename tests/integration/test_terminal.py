"""Commands whose terminal, pipe or keyboard goes away: one sentence or silence, no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import clean_environment

HELP = [("producer.cli", "--help"), ("producer.cli", "submit", "--help"), ("workers.cli", "--help")]
RANDOM = "random:esm2_t6_8M_UR50D"


def shell(command: str, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell command in which ``"$@"`` is one of the project's commands."""
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", *words],
        env=clean_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("words", HELP)
def test_a_full_standard_output_is_an_error_in_one_line(words):
    done = shell('"$@" > /dev/full', *words)
    assert done.returncode == 2
    name = "producer" if words[0] == "producer.cli" else "worker"
    assert done.stderr == f"{name}: The output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("words", HELP)
@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_does_no_harm(words, closing):
    done = shell(f'"$@" {closing}', *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_printed_to_a_closed_stream_does_not_go_into_a_file(tmp_path):
    """The next file to be opened would take the number of the closed stream."""
    log = tmp_path / "log"
    code = (
        "from common.streams import open_closed_streams; open_closed_streams(); "
        f"file = open({str(log)!r}, 'w'); print('printed', flush=True); file.write('logged')"
    )
    done = subprocess.run(["bash", "-c", '"$@" >&-', "bash", sys.executable, "-c", code])
    assert (done.returncode, log.read_text()) == (0, "logged")


@pytest.mark.parametrize("words", HELP)
def test_a_reader_that_ends_early_ends_the_command_in_silence(words):
    done = shell('"$@" | true; exit ${PIPESTATUS[0]}', *words)
    assert done.returncode in (0, 1)
    assert done.stderr == ""


def test_the_tables_of_a_fleet_may_be_cut_or_refused(fleet, tiny, examples):
    job = fleet.producer("submit", examples, "--model", tiny).stdout.strip()
    for words in (["jobs"], ["status"], ["status", job], ["dead-letters"]):
        for redirection in ("> /dev/full", "| true", ">&-", "2> /dev/full"):
            done = shell(f'"$@" {redirection}', "producer.cli", *words, **fleet.environment)
            assert "Traceback" not in done.stderr, (words, redirection)
            assert len(done.stderr.splitlines()) <= 1, (words, redirection)


@pytest.mark.parametrize("words", [["submit", "-"], ["submit", "-", "--local", "-o", "x.h5"]])
def test_a_closed_standard_input_is_an_error_in_one_line(words, fleet, tmp_path):
    done = shell(f'cd {tmp_path} && "$@" <&-', "producer.cli", *words, **fleet.environment)
    assert done.returncode == 2
    assert done.stderr == "producer: Standard input is closed: name a file, or pipe one in.\n"


def test_dash_is_called_standard_input(fleet, tiny, examples):
    done = fleet.producer("submit", "-", "--model", tiny, stdin=examples.read_bytes())
    assert "standard input: " in done.stderr
    assert "-: " not in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        b">a\x1b[2J\x07\xc2\x9b\nMK1T\n",
        b">b\0c\nMKT\n",
        b"\0\0\x1b[2J is no FASTA\n",
        b">a\nMK\x1b[2J\n",
    ],
)
def test_control_characters_of_an_input_do_not_reach_the_terminal(content, fleet, tiny, tmp_path):
    bad = tmp_path / "bad\x1b[2J.fasta"
    bad.write_bytes(content)
    done = fleet.producer("submit", bad, "--model", tiny)
    assert done.returncode == 2
    assert "\\x1b[2J" in done.stderr
    assert not set(done.stderr) & {"\x1b", "\x07", "\x9b", "\0"}


COMMANDS = {
    "jobs": ["producer.cli", "jobs"],
    "submit": ["producer.cli", "submit", "EXAMPLES", "--local", "-o", "o.h5", "--model", RANDOM],
    "keeper": ["producer.cli", "keeper", "--metrics", ""],
    "start": ["workers.cli", "start", "--model", RANDOM, "--gpus=none"],
    "bench": ["workers.cli", "bench", "--model", RANDOM, "--gpus=none"],
    "validate": ["workers.cli", "validate", "--model", RANDOM],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_a_command_starts_prints_no_traceback(name, fleet, examples: Path, tmp_path):
    words = [word.replace("EXAMPLES", str(examples)) for word in COMMANDS[name]]
    for seconds in (0.15, 0.3, 0.5, 1.0):
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**fleet.environment},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        if output.startswith("Fatal Python error: init_"):
            continue  # the interpreter had not started: no program can say anything then
        assert "Traceback" not in output, (seconds, output)
        assert process.returncode in (-signal.SIGINT, 0, 130), (seconds, output)
