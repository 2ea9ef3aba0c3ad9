"""The load of Redis per unit: a batch, a second, a look."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from common.wire.queues import KEY_PREFIX


@dataclass(frozen=True)
class Load:
    """The load of Redis per unit."""

    cpu: float  # microseconds of Redis's main thread, including sockets
    #: Calls and microseconds of each command; those of a script are also counted in ``evalsha``.
    commands: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return a readable line for each command."""
        return [
            f"{calls:9.3f} {command:16} {usec:9.2f} us"
            for command, (calls, usec) in self.commands.items()
        ]


class Meter:
    """A meter of Redis's load since the meter was created."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.before = self.read()

    def read(self) -> tuple[float, dict[str, tuple[int, int]]]:
        """Return the microseconds of Redis's thread, and each command's calls and microseconds."""
        cpu = self.redis.info("cpu")
        seconds = cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]
        commands = self.redis.info("commandstats").items()
        counts = {k.removeprefix("cmdstat_"): (v["calls"], v["usec"]) for k, v in commands}
        return 1e6 * seconds, counts

    def load(self, times: float) -> Load:
        """Return the load since the start, divided by ``times``."""
        (cpu, earlier), (now, later) = self.before, self.read()
        found = {}
        for name, (calls, usec) in sorted(later.items()):
            calls_before, usec_before = earlier.get(name, (0, 0))
            if calls > calls_before and name != "info":
                found[name] = ((calls - calls_before) / times, (usec - usec_before) / times)
        return Load((now - cpu) / times, found)


def memory(redis: Redis, pattern: str) -> int:
    """Return the bytes of Redis's memory in the keys of a pattern."""
    keys = redis.scan_iter(f"{KEY_PREFIX}{pattern}", count=1000)
    return sum(redis.memory_usage(key, samples=0) or 0 for key in keys)


def machine(redis: Redis) -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = cpu[1] if cpu else platform.processor()
    return f"{os.cpu_count()} cores {name}, Valkey {redis.info('server')['valkey_version']}"
