"""The joint jobs that Redis knows, so that commands that have no store find their parts."""

from collections.abc import Sequence

from redis import Redis

from common.wire.queues import KEY_PREFIX

JOINT_KEY = f"{KEY_PREFIX}joint"


class JointJobs:
    """The jobs of each joint job, by its name. The store has them, too."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def put(self, name: str, jobs: Sequence[str]) -> None:
        self.redis.hset(JOINT_KEY, name, " ".join(jobs))

    def get(self, name: str) -> list[str]:
        """Return the names of a joint job's jobs; none if it is not known."""
        found = self.redis.hget(JOINT_KEY, name)
        return [] if found is None else str(found).split()

    def forget(self, name: str) -> None:
        self.redis.hdel(JOINT_KEY, name)
