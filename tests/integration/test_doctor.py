"""``producer doctor`` and ``worker doctor``: what they say of a fleet that is right, and not."""

import json
import subprocess
import sys

import pytest

from common.ledger.ledger import Ledger
from tests.conftest import ROOT
from tests.support.processes import clean_environment, run
from tests.support.secrets import SECRET

DOCTORS = ["producer.cli", "workers.cli"]


def doctor(module: str, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return run(module, "doctor", *words, environment=clean_environment(**more))


def outcomes(done: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    document = json.loads(done.stdout)
    assert document["version"] == 1
    assert document["passed"] == (done.returncode == 0)
    return {check["name"]: check["outcome"] for check in document["checks"]}


@pytest.mark.parametrize("module", DOCTORS)
def test_a_fleet_that_is_right_passes_and_is_left_as_it_was(fleet, module, tiny, tmp_path):
    (tmp_path / "store").mkdir()
    ledger: Ledger = fleet.ledger
    done = run(module, "doctor", "--model", tiny, "--json", environment=fleet.environment)
    found = outcomes(done)
    assert done.returncode == 0, done.stdout
    for name in ("redis", "redis rights", "redis clock", "store write", "weights", "packages"):
        assert found[name] == "ok", done.stdout
    assert ("attention" in found) == (module == "workers.cli")
    assert ledger.redis.keys("*") == []
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("module", DOCTORS)
def test_all_is_looked_at_though_all_is_wrong(module, tmp_path):
    done = doctor(
        module,
        "--model",
        str(tmp_path / "none"),
        VIRNUCPRO_BROKER_URL=f"redis://user:{SECRET}@127.0.0.1:1/0",
        VIRNUCPRO_STORE=str(tmp_path / "none"),
        VIRNUCPRO_MESSAGE_KEY=f"{SECRET}"[:8],
    )
    assert done.returncode == 1
    lines = dict(line[2:].split(": ", 1) for line in done.stdout.splitlines())
    signs = {line[2:].split(":")[0]: line[0] for line in done.stdout.splitlines()}
    assert "at least 16 characters" in lines["message key"]
    assert "No Redis answers at redis://***@127.0.0.1:1/0" in lines["redis"]
    assert "is not there: mount it" in lines["store"]
    assert {signs[name] for name in ("message key", "redis", "store")} == {"✗"}
    assert signs["weights"] == ("✗" if module == "workers.cli" else "!")
    assert signs["packages"] == "✓"
    assert SECRET[:8] not in done.stdout + done.stderr


def test_a_terminal_without_the_letters_gets_words(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", "doctor"],
        env=clean_environment(
            PYTHONIOENCODING="ascii", PYTHONPATH=str(ROOT), VIRNUCPRO_STORE=str(tmp_path)
        ),
        capture_output=True,
        text=True,
    )
    assert "FAILED redis: " in done.stdout or "ok redis: " in done.stdout
    assert "ok packages: " in done.stdout
    assert done.stdout.isascii()
    assert done.stderr == ""


def test_no_option_of_a_wrong_kind_is_taken(tmp_path):
    done = doctor("workers.cli", "--model", "no-such-model")
    assert done.returncode == 2
    assert "Unknown model 'no-such-model'" in done.stderr
