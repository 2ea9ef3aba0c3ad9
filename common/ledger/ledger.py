"""The ledger: a job's progress in Redis, changed only by Lua scripts that can be run twice.

Keys, each after ``virnucpro:``

    jobs                        sorted set of jobs by creation
    job:<job>                   hash of counters and state
    job:<job>:stored            bitmap of batches of which the store has a shard that is not counted
                                yet, while the ledger is made anew
    job:<job>:begun             bitmap of batches that were claimed or are done
    job:<job>:done:<rung>       bitmap of batches
    job:<job>:leases            sorted set of <batch>.<rung> by expiry, in Redis's time
    job:<job>:owners            hash of <batch>.<rung>: who holds the lease
    job:<job>:attempts          hash of <batch>.<rung>: claims so far, until it is done
    job:<job>:deaths            hash of <batch>.<rung>: leases that ran out, until it is done
    job:<job>:trails            hash of <batch>.<rung>: what a careful owner is at, as JSON
    job:<job>:staging           who writes its input now; expires
    job:<job>:results           hash of <batch>.<rung>: results that were not ok, as JSON; one with
                                rows that go on stays until the next rung's result is there. Rows
                                that were given up at once are under <batch>.<rung>.poison
    job:<job>:events            list of what went wrong and was mended, newest first
    keeper:<store>              who keeps the jobs of a store now; expires
    kept:<store>                there since a keeper has looked for the store's jobs
    worker:<name>               what a live worker serves; expires
    dead                        list of messages that no worker could read, newest first

The store is the truth: a ledger that is gone can be built again from it.
"""

from redis import Redis

from common.ledger.batches import Batches
from common.ledger.events import Events
from common.ledger.jobs import Jobs
from common.ledger.leases import Leases
from common.ledger.locks import Locks
from common.ledger.results import Results
from common.ledger.stores import Stores
from common.ledger.workers import WorkerRegistry


class Ledger:
    """The ledger of all jobs on one Redis, by subject."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.jobs = Jobs(redis)
        self.batches = Batches(redis)
        self.leases = Leases(redis)
        self.results = Results(redis)
        self.events = Events(redis)
        self.locks = Locks(redis)
        self.stores = Stores(redis)
        self.workers = WorkerRegistry(redis)
