"""What a keeper answers over HTTP: its metrics, whether it goes on, and the demand for workers."""

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from redis.exceptions import RedisError

from common.errors import UserError
from common.http import Answer, Handler
from common.ledger.ledger import Ledger
from common.wire.redis_client import redis_client
from producer.scheduling.demand_query import pool_of_query
from producer.scheduling.fleet_reading import FleetReader
from producer.scheduling.keeper import Keeper
from producer.scheduling.metrics import KeeperMetrics, make_registry

#: Seconds that an answer of Redis may take. A request may wait for two: to connect, and the answer.
ANSWER_SECONDS = 0.7

#: Seconds after which a step counts as hung. To restore the jobs of a large store, or to delete a
#: large job, takes minutes.
HUNG_SECONDS = 1800.0

UNKNOWN = (
    "The demand is not known: no keeper acts, or none could look for the jobs in the store since "
    "Redis was emptied. Its log says why."
)


class KeeperPages:
    """The pages of a keeper, which answer within two seconds whatever Redis does."""

    def __init__(self, broker_url: str, keeper: Keeper) -> None:
        self.keeper = keeper
        redis = redis_client(broker_url, answer_seconds=ANSWER_SECONDS, retries=0)
        self.ledger = Ledger(redis)
        reader = FleetReader(self.ledger, keeper.one_by_one)
        self.registry: CollectorRegistry
        self.own: KeeperMetrics
        self.registry, self.own = make_registry(keeper, reader)

    @property
    def handlers(self) -> dict[str, Handler]:
        return {"/metrics": self.metrics, "/healthz": self.health, "/demand": self.demand}

    def metrics(self, _query: Mapping[str, str]) -> Answer:
        return Answer(generate_latest(self.registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    def health(self, _query: Mapping[str, str]) -> Answer:
        """Say whether the keeper's loop goes on, with or without Redis and the store."""
        seconds = time.monotonic() - self.own.turned_at
        steps = seconds < HUNG_SECONDS
        found = {
            "steps": steps,
            "acting": self.keeper.acting,
            "seconds_since_step": round(seconds, 1),
        }
        return Answer.of_json(found, 200 if steps else 503)

    def demand(self, query: Mapping[str, str]) -> Answer:
        """Say how many batches are left of a pool, of a model's pools together, or of each pool.

        A pool without an open job has none. What nobody knows is an error, lest an autoscaler take
        it for none, and so is a query that asks for no pool.
        """
        try:
            pool = pool_of_query(query)
        except UserError as error:
            return Answer.of_json({"error": str(error)}, 400)
        try:
            pools = self.ledger.demand.read()
        except RedisError as error:
            return Answer.of_json({"error": f"Redis does not answer: {error}"}, 503)
        if pools is None:
            return Answer.of_json({"error": UNKNOWN}, 503)
        if pool is None:
            return Answer.of_json({"batches": sum(pools.values()), "pools": pools})
        found = [n for name, n in pools.items() if pool in (name, name.rpartition(".")[0])]
        return Answer.of_json({"pool": pool, "batches": sum(found)})
