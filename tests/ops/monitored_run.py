"""A real fleet with faults in it, scraped by a real Prometheus."""

import json
import random
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
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
RUN_SECONDS = 600.0

MEGABYTE = 2**20


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, and the time of the run that it scraped."""

    url: str
    start: float
    end: float = 0.0
    faults: Mapping[str, float] = field(default_factory=dict)  # what happened, and when

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

    One job's worker is killed, some sequences of the other are not finite in FP16, the store is
    away for some seconds, and somebody writes into a queue.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(folder / "redis", maxmemory=64 * MEGABYTE))
        fleet = fleet_at(redis.url, f"file://{folder}/store")
        jobs = submit_both(fleet, folder)
        ports = {name: free_port() for name in ("keeper", "worker-1", "worker-2")}
        keeper = ["-m", "producer.cli", "keeper", f"--metrics={HOST}:{ports['keeper']}"]
        service(stack, folder / "keeper.log", [sys.executable, *keeper], fleet)
        prometheus = start_prometheus(stack, folder, ports)
        faults = run_jobs(stack, fleet, folder, ports, jobs)
        time.sleep(5)  # a few scrapes more
        yield replace(prometheus, end=time.time(), faults=faults)


def service(stack: ExitStack, log: Path, command: list[str], fleet: Fleet | None = None) -> None:
    """Run a program until the end."""
    with log.open("wb") as output:
        environment = None if fleet is None else fleet.environment
        process = start_dependent(command, env=environment, output=output)
    stack.callback(stop, process, 20)


def start_prometheus(stack: ExitStack, folder: Path, ports: dict[str, int]) -> Prometheus:
    port = free_port()
    targets = [
        {"targets": [f"{HOST}:{number}"], "labels": {"instance": name, "fleet": "example"}}
        for name, number in ports.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "virnucpro", "static_configs": targets}],
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
        found = prometheus.get("query", query='up{instance="keeper"} == 1')["result"]
    except OSError:
        return False
    return bool(found)


def submit_both(fleet: Fleet, folder: Path) -> tuple[str, str]:
    """Submit a job with sequences that are not finite in FP16, and a larger one without."""
    model = PROTEIN.save(add_too_much_at_once, folder)
    odd = write_fasta(folder / "odd.fasta", 600, 60, odd_every=50)
    unstable = submit(fleet, odd, str(model), "fp16", "--batch-tokens=500")
    large = write_fasta(folder / "large.fasta", 400, 250)
    return unstable, submit(fleet, large, MODEL, "fp32", "--batch-tokens=3000")


def run_jobs(
    stack: ExitStack, fleet: Fleet, folder: Path, ports: Mapping[str, int], jobs: tuple[str, str]
) -> dict[str, float]:
    """Have two workers do the jobs; return what happened meanwhile, and when."""
    unstable, large = jobs
    faults: dict[str, float] = {}
    time.sleep(5)  # no worker yet
    options = [f"--metrics={HOST}:{ports['worker-1']}"]
    worker = start_worker(stack, folder / "worker-1.log", MODEL, fleet, *options)
    options = ["--precision=fp16", f"--metrics={HOST}:{ports['worker-2']}"]
    model = progress(fleet.ledger, unstable).model
    start_worker(stack, folder / "worker-2.log", model, fleet, *options)
    faults["somebody writes into a queue"] = time.time()
    queue = progress(fleet.ledger, unstable).queue
    fleet.ledger.redis.lpush(f"{KEY_PREFIX}{queue}", "no message")
    wait_until(lambda: share_done(fleet.ledger, large) > 0.2, RUN_SECONDS)
    faults["the store is away"] = time.time()
    hide(folder / "store", 4)
    wait_until(lambda: share_done(fleet.ledger, large) > 0.4, RUN_SECONDS)
    wait_until(lambda: progress(fleet.ledger, large).leased, RUN_SECONDS)
    faults["a worker is killed"] = time.time()
    kill(worker)
    for job in jobs:
        wait_until(lambda job=job: progress(fleet.ledger, job).finished, RUN_SECONDS)
    return faults


def hide(folder: Path, seconds: float) -> None:
    """Take a folder away for a while, as a file server that is gone does."""
    hidden = folder.rename(folder.with_name("away"))
    time.sleep(seconds)
    hidden.rename(folder)


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


def write_fasta(path: Path, records: int, length: int, odd_every: int = 0) -> Path:
    """Write proteins; some of them have a letter that some models overflow for."""
    draw = random.Random(records)
    with path.open("w") as file:
        for row in range(records):
            protein = "".join(draw.choices("LAGVSERTIDPKQNFYMHWC", k=length))
            if odd_every and row % odd_every == 0:
                protein = protein[:-1] + RARE
            file.write(f">p{row}\n{protein}\n")
    return path


def progress(ledger: Ledger, job: str) -> Any:
    return ledger.jobs.progress(job)


def share_done(ledger: Ledger, job: str) -> float:
    found = progress(ledger, job)
    return float(found.batches_done / found.batches)
