"""Who submits a job: named, or known by user and host, or by a number where there is no name."""

import getpass
import os
import socket

import pytest

from common.errors import UserError
from producer.submission.owner import LONGEST, owner_named


@pytest.fixture(autouse=True)
def unset(monkeypatch) -> None:
    monkeypatch.delenv("VIRNUCPRO_OWNER", raising=False)


def test_the_option_comes_before_the_variable_and_that_before_user_and_host(monkeypatch):
    assert owner_named(None) == f"{getpass.getuser()}@{socket.gethostname()}"
    monkeypatch.setenv("VIRNUCPRO_OWNER", "pipeline")
    assert owner_named(None) == "pipeline"
    assert owner_named("ada") == "ada"


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_is_a_number(monkeypatch, error):
    """As in a container whose user has no entry in passwd."""

    def fail() -> str:
        raise error("uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", fail)
    assert owner_named(None) == f"{os.getuid()}@{socket.gethostname()}"


@pytest.mark.parametrize("odd", ["a\nb", "\x1b[2J", "x" * (LONGEST + 1)])
def test_an_owner_is_one_line_that_does_nothing_to_a_terminal(odd):
    with pytest.raises(UserError, match="VIRNUCPRO_OWNER"):
        owner_named(odd)
