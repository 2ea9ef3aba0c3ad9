"""A real fleet with faults in it, scraped by a real Prometheus."""

import json
import random
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from common.ledger.ledger import Ledger
from common.local.processes import start_dependent, stop
from common.wire.queues import KEY_PREFIX
from tests.conftest import ROOT
from tests.support.overflow import PROTEIN, RARE, add_too_much_at_once
from tests.support.processes import (
    Fleet,
    Worker,
    fleet_at,
    running_worker,
    wait_until,
)
from tests.support.redis_servers import HOST, free_port, running_redis

RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"

MODEL = "random:esm2_t6_8M_UR50D"

#: Seconds in which the jobs end, on a busy machine.
RUN_SECONDS = 400.0

MEGABYTE = 2**20


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, and the time of the run that it scraped."""

    url: str
    start: float
    end: float = 0.0

    def get(self, path: str, **query: object) -> Any:
        """Return the data of an answer of its API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def series(self, query: str) -> dict[str, list[tuple[float, float]]]:
        """Return the values of a query in the run: times and numbers by labels, as JSON."""
        times = {"start": self.start, "end": self.end, "step": 1}
        found = self.get("query_range", query=query, **times)["result"]
        return {
            json.dumps(one["metric"]): [
                (float(at) - self.start, float(value)) for at, value in one["values"]
            ]
            for one in found
        }


@contextmanager
def monitored_run(folder: Path) -> Iterator[Prometheus]:
    """Run two jobs; yield the Prometheus that saw them, after their end.

    One job's worker is killed, some sequences of the other are not finite in FP16, and somebody
    writes into a queue.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(folder / "redis", maxmemory=64 * MEGABYTE))
        fleet = fleet_at(redis.url, f"file://{folder}/store")
        ports = {name: free_port() for name in ("keeper", "worker", "other")}
        keeper = ["-m", "producer.cli", "keeper", f"--metrics={HOST}:{ports['keeper']}"]
        service(stack, folder / "keeper.log", [sys.executable, *keeper], fleet)
        prometheus = start_prometheus(stack, folder, ports)
        run_jobs(stack, fleet, folder, ports)
        time.sleep(5)  # a few scrapes more
        yield Prometheus(prometheus.url, prometheus.start, time.time())


def service(stack: ExitStack, log: Path, command: list[str], fleet: Fleet | None = None) -> None:
    """Run a program until the end."""
    with log.open("wb") as output:
        environment = None if fleet is None else fleet.environment
        process = start_dependent(command, env=environment, output=output)
    stack.callback(stop, process, 20)


def start_prometheus(stack: ExitStack, folder: Path, ports: dict[str, int]) -> Prometheus:
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"{HOST}:{n}" for n in numbers]}]}
            for job, numbers in {
                "keeper": [ports["keeper"]],
                "worker": [ports["worker"], ports["other"]],
            }.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        *("prometheus", f"--config.file={folder}/prometheus.yml"),
        *(f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address={HOST}:{port}"),
    ]
    service(stack, folder / "prometheus.log", command)
    found = Prometheus(f"http://{HOST}:{port}", time.time())
    wait_until(lambda: is_up(found), 60)
    return found


def is_up(prometheus: Prometheus) -> bool:
    try:
        found = prometheus.get("query", query='up{job="keeper"} == 1')["result"]
    except OSError:
        return False
    return bool(found)


def run_jobs(stack: ExitStack, fleet: Fleet, folder: Path, ports: dict[str, int]) -> None:
    large = submit(fleet, write_fasta(folder / "large.fasta", 900, 400), MODEL, "fp32")
    overflowing = PROTEIN.save(add_too_much_at_once, folder)
    odd = write_fasta(folder / "odd.fasta", 600, 60, odd=12)
    unstable = submit(fleet, odd, str(overflowing), "fp16", "--batch-tokens=500")
    time.sleep(5)  # no worker yet
    options = [f"--metrics={HOST}:{ports['worker']}"]
    worker = start_worker(stack, folder / "worker.log", MODEL, fleet, *options)
    options = ["--precision=fp16", f"--metrics={HOST}:{ports['other']}"]
    start_worker(stack, folder / "other.log", str(overflowing), fleet, *options)
    fleet.ledger.redis.lpush(f"{KEY_PREFIX}{queue_of(fleet.ledger, unstable)}", "no message")
    wait_until(lambda: share_done(fleet.ledger, large) > 0.3, RUN_SECONDS)
    wait_until(lambda: progress(fleet.ledger, large).leased, RUN_SECONDS)
    kill(worker)
    for job in (large, unstable):
        wait_until(lambda job=job: progress(fleet.ledger, job).finished, RUN_SECONDS)


def start_worker(stack: ExitStack, log: Path, model: str, fleet: Fleet, *options: str) -> Worker:
    return stack.enter_context(running_worker(model, log, fleet.environment, *options))


def kill(worker: Worker) -> None:
    """Kill the process that computes; its supervisor starts another one."""
    children = psutil.Process(worker.supervisor.pid).children()
    max(children, key=lambda child: child.memory_info().rss).kill()


def submit(fleet: Fleet, fasta: Path, model: str, precision: str, *options: str) -> str:
    done = fleet.producer("submit", fasta, "--model", model, "--precision", precision, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write_fasta(path: Path, records: int, length: int, odd: int = 0) -> Path:
    """Write proteins; the first of them have a letter that some models overflow for."""
    draw = random.Random(records)
    with path.open("w") as file:
        for row in range(records):
            protein = "".join(draw.choices("LAGVSERTIDPKQNFYMHWC", k=length))
            file.write(f">p{row}\n{protein[:-1] + RARE if row < odd else protein}\n")
    return path


def progress(ledger: Ledger, job: str) -> Any:
    return ledger.jobs.progress(job)


def share_done(ledger: Ledger, job: str) -> float:
    found = progress(ledger, job)
    return float(found.batches_done / found.batches)


def queue_of(ledger: Ledger, job: str) -> str:
    return str(progress(ledger, job).queue)
