"""The drill itself: two jobs, and what goes wrong meanwhile."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import h5py

from tests.chart.drill.cluster import MODEL, Cluster
from tests.chart.drill.kubelet import Look, Pod
from tests.chart.drill.records import Records, Untruth, not_alive, untrue

T = TypeVar("T")

LETTERS = "LAGVSERTIDPKQNFYMHWC"

#: Seconds until the next thing happens, at most.
STEP_SECONDS = 420.0

#: Seconds before the job is submitted, and after the last worker has ended.
QUIET_SECONDS = 5.0

#: Seconds for which Redis is away.
AWAY_SECONDS = 8.0


@dataclass(frozen=True)
class Size:
    """How much is computed, and how fast the autoscaler's clock runs."""

    batches: int  # of the first job
    records: int  # of each
    length: int  # residues of each record
    long_records: int  # of a thousand residues, of the second job, which is one batch
    per_replica: int  # batches for each worker
    speed: float


FULL = Size(800, records=2, length=100, long_records=40, per_replica=60, speed=20.0)
SHORT = Size(320, records=1, length=100, long_records=60, per_replica=40, speed=60.0)


@dataclass
class Drill:
    """A run of the cluster."""

    cluster: Cluster
    size: Size
    away: list[float] = field(default_factory=list)  # when Redis went, and when it was back

    def run(self) -> None:
        """Run both jobs, from no worker to no worker."""
        self.cluster.start_redis()
        self.cluster.producer(files=self.files)  # makes the store
        self.turn_until(lambda: self.cluster.look() is not None)
        self.cluster.begin()
        self.turn_for(QUIET_SECONDS)
        size = self.size
        self.submit("small", size.batches * size.records, size.length, size.records)
        for share, what, act in self.faults:
            self._turn_until_done(share)
            self.note(what)
            act()
        self._turn_until_done(0.8)
        self.turn_until(lambda: len(self.away) == 2)  # without Redis nobody can submit
        self.submit("long", size.long_records, 1000, size.long_records)
        self.turn_until(lambda: self.left() == 0)
        self.note("all batches are done")
        self.turn_until(lambda: not self.cluster.workers.active)
        self.note("the last worker ends")
        self.turn_for(QUIET_SECONDS)

    @property
    def faults(self) -> list[tuple[float, str, Callable[[], None]]]:
        """What happens when this share of the first job is done."""
        return [
            (0.15, "a pod is killed (SIGKILL)", self.kill_pod),
            (0.3, "the acting keeper is killed", self.kill_keeper),
            (0.45, f"Redis is away for {AWAY_SECONDS:.0f} s", self.restart_redis),
            (0.6, "a node is taken back: a busy pod gets SIGTERM", self.evict_pod),
        ]

    @property
    def files(self) -> Path:
        folder = self.cluster.folder / "files"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def now(self) -> float:
        return time.monotonic() - self.cluster.records.begin

    def note(self, what: str) -> None:
        self.cluster.records.note(time.monotonic(), what)

    # --- what happens -----------------------------------------------------------------------------

    def submit(self, name: str, records: int, length: int, each: int) -> None:
        """Submit a job whose batches have so many records each."""
        draw = random.Random(name)
        fasta = self.files / f"{name}.fasta"
        with fasta.open("w") as file:
            for row in range(records):
                file.write(f">{name}{row}\n{''.join(draw.choices(LETTERS, k=length))}\n")
        tokens = each * (length + 2)
        words = ("submit", f"/files/{name}.fasta", "--model", MODEL, "--batch-tokens", tokens)
        command = self.cluster.start_producer(*words, files=self.files)
        self.turn_until(lambda: command.exit_code() is not None)
        self.cluster.jobs.append(command.output().split()[-1])
        count = records // each
        batches = f"{count} batches" if count > 1 else "one batch"
        self.note(f"a job is submitted: {batches} of {tokens:,} tokens")

    def kill_pod(self) -> None:
        container = self.busy_pod().container
        assert container is not None
        container.kill()

    def evict_pod(self) -> None:
        self.busy_pod().delete()

    def kill_keeper(self) -> None:
        acting = self.cluster.acting_keeper()
        assert acting.container is not None
        acting.container.kill()

    def restart_redis(self) -> None:
        def restart() -> None:
            self.away = [self.now]
            self.cluster.stop_redis()
            time.sleep(AWAY_SECONDS)
            self.cluster.start_redis()
            self.away.append(self.now)
            self.note("Redis is back")

        threading.Thread(target=restart).start()

    def busy_pod(self) -> Pod:
        """Wait until a ready pod has a batch; return it.

        One that was just killed still counts as ready, and as busy.
        """

        def busy() -> Pod | None:
            claims = self.cluster.claims()
            ready = [pod for pod in self.cluster.workers.active if pod.ready and pod.runs()]
            return next((pod for pod in ready if claims and claims.by_pod[pod.name]), None)

        return self.turn_until(busy)

    # --- time -------------------------------------------------------------------------------------

    def turn_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.turn_until(lambda: time.monotonic() >= until)

    def turn_until(self, condition: Callable[[], T | None]) -> T:
        """Let time pass until a condition is true; return its value."""
        until = time.monotonic() + STEP_SECONDS
        while not (found := condition()):
            assert time.monotonic() < until, f"not in {STEP_SECONDS:.0f} s"
            self.cluster.turn()
            time.sleep(0.1)
        return found

    def _turn_until_done(self, share: float) -> None:
        """Let time pass until a share of the first job's batches is done."""
        self.turn_until(lambda: self.share_done() >= share)

    def share_done(self) -> float:
        claims = self.cluster.claims()
        return claims.done / self.size.batches if claims else 0.0

    def left(self) -> int | None:
        claims = self.cluster.claims()
        return claims.left if claims else None

    # --- what came of it --------------------------------------------------------------------------

    def rows(self) -> dict[str, int]:
        """Fetch both jobs; return how many rows each has, all different."""
        found = {}
        for job in self.cluster.jobs:
            self.cluster.producer("verify", job, files=self.files)
            self.cluster.producer("fetch", job, "-o", f"/files/{job}.h5", files=self.files)
            with h5py.File(self.files / f"{job}.h5") as file:
                rows = file["rows"][()].tolist()
            assert rows == list(range(len(rows))), f"{job}: rows are missing, or there twice"
            found[job] = len(rows)
        return found


@dataclass(frozen=True)
class Result:
    """What came of a drill."""

    records: Records
    rows: dict[str, int]  # fetched, by job
    ends: list[dict[str, Any]]  # of pods that were deleted
    untrue: list[Untruth]
    not_alive: list[Look]
    away: tuple[float, float]  # from when until when Redis was

    def lags(self) -> tuple[float, float]:
        """Return the longest time for which a readiness probe lagged behind, and that while Redis
        was away.
        """
        usual, during = [0.0], [0.0]
        begin, end = self.away
        for one in self.untrue:
            overlaps = one.begin < end and one.begin + one.seconds > begin
            (during if overlaps else usual).append(one.seconds)
        return max(usual), max(during)


def run(folder: Path, size: Size) -> Result:
    """Run a drill with its logs in a folder."""
    cluster = Cluster(folder, speed=size.speed, batches_per_replica=size.per_replica)
    drill = Drill(cluster, size)
    try:
        drill.run()
        rows = drill.rows()
    finally:
        cluster.close()
    records = cluster.records
    return Result(
        records=records,
        rows=rows,
        ends=cluster.workers.facts(),
        untrue=untrue(records.seen),
        not_alive=not_alive(records.seen),
        away=(drill.away[0], drill.away[1]),
    )
