"""The store and the Redis of a fleet, each connected to when it is first used."""

from functools import cached_property

from common.ledger.ledger import Ledger
from common.local.fleet import LocalFleet
from common.settings import Settings
from common.store import Store, open_store
from common.wire.redis_client import connect
from producer.scheduling.publisher import Publisher, publisher_of


class Connections:
    """What a fleet and its jobs have in common.

    Nothing is connected to before it is needed: fetching needs the store alone, listing jobs Redis
    alone.
    """

    def __init__(self, settings: Settings | None = None, machine: LocalFleet | None = None) -> None:
        """Name a fleet.

        Args:
            settings: None: those of the environment (``VIRNUCPRO_BROKER_URL``, …).
            machine: the processes of a fleet that lives on this machine only.
        """
        self.settings = settings or Settings.read()
        self.machine = machine

    @cached_property
    def store(self) -> Store:
        return open_store(self.settings.required_store())

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(connect(self.settings.broker_url))

    @cached_property
    def publisher(self) -> Publisher:
        return publisher_of(self.settings, self.ledger)

    def connect(self) -> None:
        """Open the store and connect to Redis, to learn before any work that one is missing.

        Raises:
            UserError: no store is named, or Redis does not answer.
        """
        _ = self.store, self.ledger

    def check(self, model: str) -> None:
        """Raise if a process on this machine that jobs of a model need has ended.

        Raises:
            UserError: which, with the end of the worker's log.
        """
        if self.machine is not None:
            self.machine.check(model)
