"""The chart's pods on one machine, and the autoscaler that asks their keepers."""

import itertools
import random
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.wire.redis_client import redis_client
from tests.chart.drill.kubelet import Look, Pod
from tests.chart.drill.manifests import Template, template_of
from tests.chart.drill.records import Candidate, Decision, Moment, Records, Seen
from tests.chart.drill.replicaset import ReplicaSet, cost
from tests.chart.drill.sandbox import Container, start_container
from tests.chart.keda import Autoscaler, ask, read_scaled
from tests.support.chart import find, render
from tests.support.chart_redis import ADDRESS, chart_redis, password_of
from tests.support.kubernetes_api import kubernetes_api
from tests.support.redis_servers import HOST, free_port

MODEL = "random:esm2_t6_8M_UR50D"
POOL = "small"

#: Most workers.
MOST = 4

#: Seconds that Redis has for the drill's own questions.
ANSWER_SECONDS = 1.0

#: Seconds in which Redis is ready.
START_SECONDS = 60.0

#: Seconds that a command of the producer may take.
COMMAND_SECONDS = 600.0


@dataclass(frozen=True)
class Claims:
    """What the ledger says: claimed batches by pod, and batches that are done and left."""

    by_pod: Counter[str]
    done: int
    left: int


class Cluster:
    """Redis, keepers and a pool of workers, as the chart renders them for some values."""

    def __init__(self, folder: Path, *, speed: float, batches_per_replica: int) -> None:
        """Create a cluster without pods.

        Args:
            speed: seconds of the autoscaler's clock in one second.
            batches_per_replica: the pool's value of that name.
        """
        self.folder = folder
        pool = {
            **{"name": POOL, "model": MODEL, "gpu": {"count": 0}, "replicas": {"max": MOST}},
            "batchesPerReplica": batches_per_replica,
        }
        objects = render({"pools": [pool]})
        self.redis = chart_redis(objects, folder / "redis")
        (folder / "api").mkdir()
        self._stack = ExitStack()
        self.api = self._stack.enter_context(kubernetes_api(folder / "api"))
        # The user of keepers may read all that a drill looks at.
        login = f"keeper:{password_of(objects, 'keeper')}@{HOST}:{self.redis.port}"
        client = redis_client(f"redis://{login}/0", answer_seconds=ANSWER_SECONDS, retries=0)
        self.ledger = Ledger(client)
        self.jobs: list[str] = []
        self._commands = itertools.count()
        self.records = Records(speed, time.monotonic())
        self._command = template_of(objects, "Job", "store-init", "producer")
        keeper = template_of(objects, "Deployment", "keeper", "producer")
        worker = template_of(objects, "Deployment", POOL, "worker")
        self.keepers = ReplicaSet(self._make(keeper), "keeper", lambda *_: None)
        self.workers = ReplicaSet(self._make(worker), POOL, self._decide)
        self.keeper_replicas = int(find(objects, "Deployment", "keeper")["spec"]["replicas"])
        scaled = read_scaled(find(objects, "ScaledObject", POOL))
        self.autoscaler = Autoscaler(scaled, self.look)
        self.scales = False  # whether the autoscaler's clock runs

    def start_redis(self) -> None:
        """Start Redis, and return when it is ready."""
        ready, self._redis_ends = threading.Event(), threading.Event()
        ends = self._redis_ends

        def run() -> None:
            with self.redis.running():
                ready.set()
                ends.wait()

        # In a thread that lasts as long as the server, which ends with the thread that started it.
        self._redis_runs = threading.Thread(target=run, daemon=True)
        self._redis_runs.start()
        assert ready.wait(START_SECONDS), "Redis did not start"

    def stop_redis(self) -> None:
        self._redis_ends.set()
        self._redis_runs.join()

    # --- pods -------------------------------------------------------------------------------------

    def _make(self, template: Template) -> Any:
        def make(name: str) -> Pod:
            port = free_port()
            pod = Pod(name, template, lambda: self._start(template, name, port), port, self._see)
            self.api.pods[name] = pod.annotations
            return pod

        return make

    def _start(self, template: Template, pod: str, port: int) -> Container:
        """Start a pod's container; its volumes stay when it ends."""
        environment = template.environment(pod)
        environment["VIRNUCPRO_METRICS"] = f"{HOST}:{port}"  # the machine's, which all pods share
        return self._run(pod, template, template.container["args"], environment)

    def _run(
        self,
        pod: str,
        template: Template,
        args: Sequence[str],
        environment: dict[str, str],
        files: Path | None = None,
    ) -> Container:
        url = environment["VIRNUCPRO_BROKER_URL"]
        environment["VIRNUCPRO_BROKER_URL"] = url.replace(ADDRESS, f"{HOST}:{self.redis.port}")
        environment["KUBERNETES_SERVICE_HOST"] = HOST
        environment["KUBERNETES_SERVICE_PORT"] = str(self.api.port)
        # As many threads as a pod of the chart may have would only disturb the other pods here.
        environment["OMP_NUM_THREADS"] = "1"
        mounts = {
            place: (self._volume(pod, volume), not volume["readOnly"])
            for place, volume in template.mounts.items()
        }
        if files is not None:
            mounts["/files"] = (files, True)
        log = self.folder / f"{pod}.log"
        command = [template.program, *args]
        return start_container(command, environment, mounts, hostname=pod, log=log)

    def _volume(self, pod: str, volume: Mapping[str, Any]) -> Path:
        """Return the folder of a volume: a pod's own, or one that all pods share."""
        if "projected" in volume:  # the files of the service account, as the chart asks for them
            return self.api.account
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        found = self.folder / "volumes" / (claim or f"{pod}-{volume['name']}")
        found.mkdir(parents=True, exist_ok=True)
        return found

    def start_producer(self, *arguments: object, files: Path) -> Container:
        """Start a command as the chart's hook runs its own, with a folder at /files."""
        pod = f"producer-{next(self._commands)}"
        args = list(map(str, arguments)) or self._command.container["args"]
        return self._run(pod, self._command, args, self._command.environment(pod), files)

    def producer(self, *arguments: object, files: Path) -> str:
        """Run such a command to its end; return its output."""
        container = self.start_producer(*arguments, files=files)
        container.outer.wait(COMMAND_SECONDS)
        return container.output()

    def acting_keeper(self) -> Pod:
        """Return the keeper whose metrics say that it acts."""
        for pod in self.keepers.active:
            url = f"http://{HOST}:{pod.port}/metrics"
            with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                if re.search(rb"^virnucpro_keeper_acting 1", answer.read(), re.M):
                    return pod
        raise RuntimeError("no keeper acts")

    # --- what is true, and what is asked ----------------------------------------------------------

    def look(self) -> float | None:
        """Ask a keeper that is ready, as the Service chooses one."""
        ready = [pod for pod in self.keepers.active if pod.ready]
        if not ready:
            return None
        address = urlsplit(self.autoscaler.scaled.url)
        chosen = random.choice(ready)
        url = address._replace(netloc=f"{HOST}:{chosen.port}").geturl()
        return ask(url, self.autoscaler.scaled.value_location)

    def _see(self, look: Look) -> None:
        """Record what probes said of a worker, with what it told the ledger."""
        if look.pod.startswith("keeper"):
            return
        started = look.started + time.time() - time.monotonic()
        look = replace(look, at=look.at - self.records.begin)
        with suppress(RedisError):
            takes = any(
                worker.host == look.pod and takes_batches(worker, started)
                for worker in self.ledger.workers.all()
            )
            self.records.seen.append(Seen(look, takes))
            return
        self.records.seen.append(Seen(look, False))

    def claims(self) -> Claims | None:
        """Return what the ledger says of the jobs; None while Redis does not answer."""
        found, done, left = Counter[str](), 0, 0
        try:
            for job in self.jobs:
                progress = self.ledger.jobs.progress(job)
                assert progress is not None
                done += progress.batches_done
                left += progress.batches - progress.batches_done
                owners = self.ledger.leases.owners(job)
                found.update(owner.rpartition("/")[0].rpartition("@")[2] for owner in owners)
        except RedisError:
            return None
        return Claims(found, done, left)

    def _decide(self, pods: list[Pod], chosen: list[Pod]) -> None:
        now = time.monotonic() - self.records.begin
        claims = self.claims()
        self.records.decisions.append(
            Decision(
                now,
                tuple(
                    Candidate(
                        pod.name,
                        pod.ready,
                        cost(pod),
                        0 if claims is None else claims.by_pod[pod.name],
                        self.records.claimed_since(pod.name, now),
                        pod in chosen,
                    )
                    for pod in pods
                ),
            )
        )

    def begin(self) -> None:
        """Start the clocks of the autoscaler and of the records."""
        self.records.begin, self.scales = time.monotonic(), True

    # --- time -------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Do what autoscaler and ReplicaSets have to do, and record a second if it has passed."""
        now = time.monotonic() - self.records.begin
        self.keepers.scale(self.keeper_replicas)
        if not self.scales:
            return
        clock = now * self.records.speed
        self.workers.scale(self.autoscaler.turn(clock, len(self.workers.active)))
        if self.records.moments and now - self.records.moments[-1].at < 1:
            return
        claims = self.claims()
        active = self.workers.active
        self.records.moments.append(
            Moment(
                round(now, 2),
                self.autoscaler.value,
                self.autoscaler.replicas,
                len(active),
                sum(pod.ready for pod in active),
                claims.done if claims else None,
                claims.left if claims else None,
                tuple(claims.by_pod) if claims else (),
                {pod.name: pod.state for pod in self.workers.pods if not pod.ended},
            )
        )

    def close(self) -> None:
        self.workers.close()
        self.keepers.close()
        self.stop_redis()
        self._stack.close()


def takes_batches(worker: WorkerInfo, since: float) -> bool:
    """Return whether a worker process that began after a time has its model, and takes batches."""
    return (
        worker.weights is not None
        and worker.takes
        and worker.started is not None
        and worker.started >= since - 1
    )
