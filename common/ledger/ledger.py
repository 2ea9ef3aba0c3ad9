"""The ledger: the progress of all jobs in Redis. The store is the truth: from it, a lost ledger is
rebuilt.

Every change of several keys is one Lua script or one transaction, and can be repeated.

Keys, each after ``virnucpro:``

    jobs                        sorted set of jobs by creation
    job:<job>                   hash of counters and state; the name of its queue has its priority
    job:<job>:stored            bitmap of batches with a shard in the store that is not counted yet,
                                while the ledger is rebuilt
    job:<job>:begun             bitmap of batches that were claimed, or have a result
    job:<job>:done:<rung>       bitmap of batches with a result at the rung
    job:<job>:leases            sorted set of <batch>.<rung> by expiry, in Redis's time
    job:<job>:owners            hash of <batch>.<rung>: the owner of its lease
    job:<job>:attempts          hash of <batch>.<rung>: attempts, until there is a result
    job:<job>:deaths            hash of <batch>.<rung>: crashes, until there is a result
    job:<job>:trails            hash of <batch>.<rung>: its crash record, as JSON
    job:<job>:staging           lock of the process that stages, retries or deletes it; expires
    job:<job>:results           hash of <batch>.<rung>: results that were not ok, as JSON, until the
                                next rung settles them. For rows that crash their worker the result
                                is also under <batch>.<rung>.poison
    job:<job>:events            list of events as JSON, newest first
    joint                       hash of joint job: the jobs of its models
    staged-by:<job>             the owner that had the lock job:<job>:staging last; expires
    keeper:<store>              lock of the keeper of a store's jobs; expires
    look:<store>                name of the look for the store's jobs that is under way
    kept:<store>                set once a keeper has looked for the store's jobs
    demand                      hash of pool: batches left, counted by a keeper, and a field '' that
                                is there even if no job is open; expires
    demand-stores               sorted set of the stores that have a keeper, by the time at which it
                                said so last; expires
    keep:<store>                seconds for which the acting keeper keeps closed jobs; expires
    worker:<name>               a live worker, as JSON; expires
    dead                        list of dead letters as JSON, newest first
"""

from datetime import datetime

from redis import Redis

from common.ledger.batches import Batches
from common.ledger.demand import PoolDemand
from common.ledger.events import Events
from common.ledger.jobs import Jobs
from common.ledger.joint import JointJobs
from common.ledger.leases import Leases
from common.ledger.locks import Locks
from common.ledger.results import Results
from common.ledger.stores import Stores
from common.ledger.workers import WorkerRegistry
from common.wire.redis_client import redis_time


class Ledger:
    """The ledger of all jobs on one Redis, by subject."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.jobs = Jobs(redis)
        self.joint = JointJobs(redis)
        self.batches = Batches(redis)
        self.leases = Leases(redis)
        self.results = Results(redis)
        self.events = Events(redis)
        self.locks = Locks(redis)
        self.stores = Stores(redis)
        self.demand = PoolDemand(redis)
        self.workers = WorkerRegistry(redis)

    def now(self) -> datetime:
        """Return Redis's time, which all processes share."""
        return redis_time(self.redis)
