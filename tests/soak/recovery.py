"""Measuring the time until work continues after a fault."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from common.ledger.keys import job_key, parse_batch_field, store_digest
from common.ledger.ledger import Ledger
from common.ledger.locks import KEEPING_SECONDS
from common.wire.queues import KEY_PREFIX

#: Largest number of seconds from the end of a process until its batches run elsewhere.
GOAL_SECONDS = 45.0

ELSEWHERE, NEXT_BATCH = "its batches elsewhere", "next batch done"
KEEPER, REBUILT = "a keeper acts", "ledger rebuilt"


@dataclass
class Recovery:
    """An expected event after a fault."""

    fault: str
    what: str
    begun: float  # when the fault began, on the monotonic clock
    counted_from: float  # when the fault ended, if it lasted
    is_over: Callable[[], bool]
    ended: float = math.inf

    @property
    def seconds(self) -> float:
        return self.ended - self.counted_from

    @property
    def is_finished(self) -> bool:
        return self.ended < math.inf

    @property
    def is_outage(self) -> bool:
        """Whether no worker can take over batches until the recovery."""
        return self.what != ELSEWHERE

    def during(self, begun: float, ended: float) -> tuple[float, float]:
        """Return the part of the recovery in a span of time."""
        return max(self.begun, begun), min(self.ended, ended)


class Recoveries:
    """All expected recoveries, which are looked for in the ledger while Redis is reachable."""

    def __init__(self, ledger: Ledger, job: str, store_url: str) -> None:
        self.ledger = ledger
        self.redis = ledger.redis
        self.store_url = store_url
        self.key = job_key(job)
        self.keeper_key = f"{KEY_PREFIX}keeper:{store_digest(store_url)}"
        self.all: list[Recovery] = []

    def look(self) -> None:
        for recovery in self.all:
            if not recovery.is_finished and recovery.is_over():
                recovery.ended = time.monotonic()

    def held_by(self, pid: int) -> dict[str, str]:
        """Return the batches that a process has, by their names in the ledger, with owners."""
        owners = cast(dict[str, str], self.redis.hgetall(f"{self.key}:owners"))
        return {batch: owner for batch, owner in owners.items() if f"-{pid}@" in owner}

    def expect_elsewhere(self, fault: str, held: Mapping[str, str]) -> None:
        """Expect each batch to be done, or to have another owner."""
        left = dict(held)

        def is_over() -> bool:
            for batch in list(left):
                index, rung = parse_batch_field(batch)
                owner = self.redis.hget(f"{self.key}:owners", batch)
                done = self.redis.getbit(f"{self.key}:done:{rung}", index)
                if done or (owner is not None and owner != left[batch]):
                    del left[batch]
            return not left

        if held:
            self._expect(fault, ELSEWHERE, time.monotonic(), is_over)

    def expect_work(self, fault: str, begun: float) -> None:
        """Expect another batch to complete, and a keeper to act."""
        before = self._milliseconds()
        self._expect(fault, NEXT_BATCH, begun, lambda: self._milliseconds() > before)
        self.expect_keeper(fault, begun)

    def expect_keeper(self, fault: str, begun: float) -> None:
        """Expect a keeper to take or renew the lock from now on."""
        now = time.monotonic()

        def is_over() -> bool:
            left = int(self.redis.pttl(self.keeper_key)) / 1000
            return time.monotonic() - (KEEPING_SECONDS - left) > now

        self._expect(fault, KEEPER, begun, is_over)

    def expect_ledger(self, fault: str) -> None:
        """Expect a keeper to rebuild an emptied ledger; until then it does nothing else."""
        self._expect(
            fault, REBUILT, time.monotonic(), lambda: not self.ledger.stores.is_new(self.store_url)
        )

    def _milliseconds(self) -> int:
        # Not the number of batches: restoring a ledger from the store increases that too.
        return int(cast(str | None, self.redis.hget(self.key, "milliseconds")) or 0)

    def _expect(self, fault: str, what: str, begun: float, is_over: Callable[[], bool]) -> None:
        self.all.append(Recovery(fault, what, begun, time.monotonic(), is_over))

    def net_seconds(self, recovery: Recovery) -> float:
        """Return the time of a recovery, without the time in which Redis or a keeper was down."""
        begun = recovery.counted_from
        spans = [
            outage.during(begun, recovery.ended)
            for outage in self.all
            if outage.is_outage and outage is not recovery
        ]
        net, reached = recovery.seconds, begun
        for start, end in sorted(span for span in spans if span[0] < span[1]):
            net -= max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return net
