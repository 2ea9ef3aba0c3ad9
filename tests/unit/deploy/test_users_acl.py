"""The users of ``deploy/redis/users.acl`` have what all scripts need, the rare ones too."""

import re
from pathlib import Path

import pytest

from common.checks.rights import commands_of as commands_of_role
from tests.support.redis_users import PASSWORDS, USERS, make_users

ROOT = Path(__file__).parents[3]

#: The scripts of the ledger that a worker runs; producers and keepers may run all.
OF_WORKERS = {"claim", "complete", "counting", "release", "renew", "save_crash_record"}

CALL = re.compile(r"redis\.p?call\('(\w+)'")


def allowed(user: str) -> set[str]:
    """Return the commands that a user's rules name."""
    made = make_users({f"{user.upper()}_PASSWORD": PASSWORDS[user]})
    [line] = [line for line in made.stdout.splitlines() if line.startswith(f"user {user} ")]
    return set(re.findall(r"\+([a-z]+)\b", line))


def commands_of(paths: list[Path]) -> set[str]:
    """Return the commands that scripts send, in Lua or in Python's texts."""
    return {command.lower() for path in paths for command in CALL.findall(path.read_text())}


LEDGER = sorted((ROOT / "common" / "ledger" / "lua").glob("*.lua"))

#: What a doctor does not queue: its transaction, and what it has checks of its own for.
NOT_QUEUED = {"multi", "exec", "discard", "acl", "info"}


@pytest.mark.parametrize("user", ["producer", "keeper"])
def test_producers_and_keepers_may_send_what_is_in_every_script_of_theirs(user):
    needed = commands_of([*LEDGER, *(ROOT / "common" / "wire").glob("*.lua")])
    assert len(needed) > 20
    assert "lrem" in needed
    assert needed - allowed(user) == set()


def test_workers_may_send_what_is_in_every_script_of_theirs():
    transport = sorted((ROOT / "workers" / "transport").glob("*.py"))
    scripts = [path for path in LEDGER if path.stem in OF_WORKERS]
    assert len(scripts) == len(OF_WORKERS)
    assert commands_of([*scripts, *transport]) - allowed("worker") == set()


@pytest.mark.parametrize("user", ["producer", "keeper", "worker"])
def test_a_doctor_tries_all_that_a_user_may_do_and_nothing_else(user):
    tried = commands_of_role("worker" if user == "worker" else "producer", 0)
    names = {str(command[0]).lower() for command in tried} - {"ping"}  # in @connection
    unused = set() if user == "worker" else {"type"}
    assert names == allowed(user) - NOT_QUEUED - unused


@pytest.mark.parametrize("user", USERS)
def test_no_user_has_a_group_of_commands_but_that_of_connections(user):
    made = make_users({f"{user.upper()}_PASSWORD": PASSWORDS[user]})
    [line] = [line for line in made.stdout.splitlines() if line.startswith(f"user {user} ")]
    assert set(re.findall(r"\+@\w+", line)) == {"+@connection"}
    assert line.index("-@all") < line.index("+@connection") < line.index("-@dangerous")


def test_a_user_without_a_password_is_off_and_the_default_user_too():
    made = make_users({"PRODUCER_PASSWORD": PASSWORDS["producer"]})
    lines = [line.split() for line in made.stdout.splitlines()]
    assert [words[1:3] for words in lines] == [
        ["default", "off"],
        ["producer", "on"],
        *([user, "off"] for user in USERS if user != "producer"),
        ["admin", "off"],
    ]
    assert PASSWORDS["producer"] not in made.stdout


def test_a_password_may_be_in_a_file(tmp_path):
    (tmp_path / "secret").write_text(f"{PASSWORDS['keda']}\n")
    one = make_users({"KEDA_PASSWORD_FILE": str(tmp_path / "secret")})
    assert one.stdout == make_users({"KEDA_PASSWORD": PASSWORDS["keda"]}).stdout


def test_a_password_that_could_be_guessed_is_refused_and_nothing_is_printed():
    made = make_users({"PRODUCER_PASSWORD": PASSWORDS["producer"], "WORKER_PASSWORD": "short"})
    assert (made.returncode, made.stdout) == (2, "")
    assert "WORKER_PASSWORD is shorter than 16 characters" in made.stderr


def test_a_password_in_a_file_that_is_not_there_is_an_error_and_nothing_is_printed(tmp_path):
    """Not a user who is off."""
    path = tmp_path / "none"
    made = make_users(
        {"PRODUCER_PASSWORD": PASSWORDS["producer"], "WORKER_PASSWORD_FILE": str(path)}
    )
    assert (made.returncode, made.stdout) == (2, "")
    assert str(path) in made.stderr


@pytest.mark.parametrize("template", ["", "# The users.\n\n", None], ids=["empty", "bare", "none"])
def test_rules_without_users_make_no_file(template, tmp_path):
    """An empty ACL file would let everybody in, and one with `default` alone nobody."""
    path = tmp_path / "users.acl"
    if template is not None:
        path.write_text(template)
    made = make_users({"WORKER_PASSWORD": PASSWORDS["worker"]}, path)
    assert made.returncode == 2
    assert made.stdout == ""
    assert str(path) in made.stderr
