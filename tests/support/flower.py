"""``producer flower`` as a process, and what it answers."""

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from common.local.processes import start_dependent, stop
from tests.support.processes import START_SECONDS, wait_until
from tests.support.redis_servers import HOST, free_port

LOGIN = "operator:a-long-word"

#: What the page of tasks asks for: all of them, the latest first.
ALL_TASKS = {
    **{"draw": 1, "start": 0, "length": 100, "search[value]": ""},
    **{"order[0][column]": 7, "order[0][dir]": "desc", "columns[7][data]": "started"},
}


@dataclass(frozen=True)
class Flower:
    """A running Flower, and the login that it is asked with."""

    url: str
    login: str | None
    log: Path
    process: Any
    name: str | None = None  # by which it is asked; None: its address

    def ask(self, path: str, data: Mapping[str, Any] | bytes | None = None) -> tuple[int, str]:
        """Return the status and the text of an answer; with data the request is a POST."""
        form = urlencode(data).encode() if isinstance(data, Mapping) else data
        try:
            with urlopen(self._request(path, form), timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def headers(self, path: str) -> Mapping[str, str]:
        with urlopen(self._request(path), timeout=30) as answer:
            return dict(answer.headers)

    def _request(self, path: str, data: bytes | None = None) -> Request:
        request = Request(f"{self.url}{path}", data=data)
        if self.name is not None:
            request.add_header("Host", self.name)
        if self.login is not None:
            token = base64.b64encode(self.login.encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        return request

    def json(self, path: str, data: Mapping[str, Any] | None = None) -> Any:
        status, text = self.ask(path, data)
        assert status == 200, text
        return json.loads(text)

    def tasks(self) -> list[dict[str, Any]]:
        """Return the list of tasks as its page shows it."""
        rows: list[dict[str, Any]] = self.json("/tasks/datatable", ALL_TASKS)["data"]
        return rows

    def asked_workers(self) -> Any:
        """Have Flower ask the workers; return their answers.

        One that has just begun is known by its events before it hears questions.
        """
        self.ask("/workers?refresh=1")
        return self.json("/api/workers")

    def answers(self) -> bool:
        with suppress(URLError, OSError):
            return self.ask("/healthcheck") == (200, "OK")
        return False


@contextmanager
def running_flower(
    environment: Mapping[str, str], folder: Path, *, login: str | None = LOGIN, prefix: str = ""
) -> Iterator[Flower]:
    """Run Flower on a free port of this machine until the block ends."""
    address, log = f"{HOST}:{free_port()}", folder / "flower.log"
    words = [sys.executable, "-m", "producer.cli", "flower", "--address", address]
    words += ["--url-prefix", prefix] if prefix else []
    variables = {**environment, **({"VIRNUCPRO_FLOWER_LOGIN": login} if login else {})}
    with log.open("wb") as output:
        process = start_dependent(words, env=variables, output=output)
    flower = Flower(f"http://{address}{prefix}", login, log, process)
    try:
        wait_until(flower.answers, START_SECONDS)
        yield flower
    finally:
        stop(process, 20)
