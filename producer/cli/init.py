"""``producer init``."""

from producer.cli.options import Broker, StoreUrl, named_fleet
from producer.terminal.console import say


def init(*, store: StoreUrl = None, broker: Broker = None) -> None:
    """Make the store of a new fleet; from then on a keeper knows that the demand is 0.

    It may be repeated: a store stays as it is. Otherwise the first submit makes it. No other
    process does, as what is not there may be a folder that is not mounted. Redis must answer: if it
    has open jobs and the store that they are in is not there, none is made in its place.
    """
    fleet = named_fleet(broker=broker, store=store)
    if fleet.make_store():
        say(f"Made the store {fleet.store.url}.")
    else:
        say(f"{fleet.store.url} is a store already, and can be written.")
