"""A worker whose weights are on a server that does not answer."""

import pytest

from common.errors import UnavailableError, UserError
from common.local.fleet import ATTENDED
from workers.process import waiting
from workers.process.waiting import once_available


class Server:
    """A server of weights that answers at the given attempt."""

    def __init__(self, answers_at: int) -> None:
        self.answers_at = answers_at
        self.attempts = self.waits = 0

    def load(self) -> str:
        self.attempts += 1
        if self.attempts < self.answers_at:
            raise UnavailableError("Could not connect.")
        return "weights"

    def wait(self) -> None:
        self.waits += 1


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0)
    monkeypatch.delenv(ATTENDED, raising=False)


def test_a_worker_waits_for_the_server_of_its_weights_and_says_so(caplog):
    server = Server(answers_at=7)
    assert once_available(server.load, server.wait) == "weights"
    assert server.waits == 6
    assert "Waiting for the weights. Could not connect." in caplog.text


def test_a_worker_of_a_local_fleet_ends_as_its_user_waits(monkeypatch):
    monkeypatch.setenv(ATTENDED, "1")
    server = Server(answers_at=2)
    with pytest.raises(UnavailableError):
        once_available(server.load, server.wait)


def test_a_worker_does_not_wait_for_what_only_a_person_can_change():
    def load() -> None:
        raise UserError("no such model")

    with pytest.raises(UserError, match="no such model"):
        once_available(load, lambda: None)
