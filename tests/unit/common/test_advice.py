"""Advice: a method in Python, and on a command line a command that works as it is printed."""

import shlex

import pytest

from common import advice
from common.advice import CommandLine, advise_commands, how_to


@pytest.fixture
def command_line(monkeypatch):
    """Restores what the process had before the test."""
    monkeypatch.setattr(advice, "_command_line", None)
    return advise_commands


@pytest.mark.parametrize(
    ("verb", "method"), [("resume", "resume"), ("retry", "retry"), ("watch", "wait")]
)
def test_a_program_is_told_a_method(verb, method):
    assert how_to(verb, "in-1") == f"job.{method}()"


def test_a_program_is_told_a_method_with_its_options():
    told = how_to("resume", "in-1", on_instability="retry")
    assert told == "job.resume(on_instability='retry')"


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("resume", ["--store=a b", "--broker=redis://h/0"]),
        ("watch", ["--store=a b", "--broker=redis://h/0"]),
        ("fetch", ["--store=a b"]),
        ("cancel", ["--broker=redis://h/0"]),
    ],
)
def test_a_command_has_the_options_that_it_knows(command_line, verb, options):
    command_line(CommandLine(store="a b", broker="redis://h/0"))
    assert shlex.split(how_to(verb, "in-1")) == ["producer", verb, "in-1", *options]


def test_a_command_needs_no_options_that_the_environment_has(command_line):
    command_line(CommandLine())
    told = how_to("resume", "in-1", on_instability="retry")
    assert told == "producer resume in-1 --on-instability=retry"


@pytest.mark.parametrize("verb", ["resume", "retry", "watch"])
def test_a_job_of_this_machine_is_resumed_whatever_a_fleet_would_do(command_line, verb):
    command_line(CommandLine(local=("--local", "--output=e.h5")))
    assert how_to(verb, "in-1") == "producer resume in-1 --local --output=e.h5"


def test_a_password_is_not_printed(command_line):
    command_line(CommandLine(broker="redis://u:secret@h/0"))
    assert "secret" not in how_to("watch", "in-1")
