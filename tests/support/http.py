"""What a keeper answers over HTTP."""

import json
import urllib.error
import urllib.request
from typing import Any

from tests.support.redis_servers import free_port


def free_address() -> str:
    """Return an address of this machine at which nothing is served."""
    return f"127.0.0.1:{free_port()}"


def answer_at(address: str, path: str) -> Any:
    """Return the JSON of an answer, also of one with the status of an error."""
    try:
        with urllib.request.urlopen(f"http://{address}/{path}", timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def metrics_at(address: str) -> dict[str, float]:
    """Return the values of metrics by name with labels, as the page has them."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
