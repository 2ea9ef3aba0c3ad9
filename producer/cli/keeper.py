"""``producer keeper``: the process that keeps all jobs of a fleet going."""

import logging
import signal
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, NoReturn

from cyclopts.types import NonNegativeFloat, PositiveInt
from redis.exceptions import RedisError

from common.checks.broker import rights
from common.checks.check import Outcome
from common.errors import UserError
from common.http import serve
from common.ledger.events import Event, log_event
from common.ledger.ledger import Ledger
from common.logs import LogFormat, LogLevel, start_logs
from common.store import StoreError
from common.wire.address import RedisAddress
from common.wire.first_contact import wait_until_usable
from common.wire.redis_client import eviction_policy, lasting_client
from producer.cli.options import Broker, Flag, StoreUrl
from producer.fleet.fleet import Fleet
from producer.scheduling.keeper import STEP_SECONDS, Keeper
from producer.scheduling.keeper_http import KeeperPages
from producer.scheduling.metrics import KeeperMetrics
from producer.scheduling.publisher import publisher_of

if TYPE_CHECKING:
    from producer.scheduling.pod_costs import PodCosts

log = logging.getLogger("producer.scheduling.keeper")

#: Where a keeper serves HTTP if nothing else is asked for.
DEFAULT_ADDRESS = "127.0.0.1:9808"


def keeper(
    *,
    high_water: PositiveInt | None = None,
    keep_days: NonNegativeFloat | None = None,
    metrics: str | None = None,
    pod_costs: Annotated[bool, Flag] = False,
    log_format: LogFormat | None = None,
    log_level: LogLevel | None = None,
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Keep all jobs going until Ctrl-C or SIGTERM, whatever happens to workers and Redis.

    A fleet may have several: one acts, the others wait to take its place.

    Parameters
    ----------
    high_water
        Largest number of messages in the queues; default: VIRNUCPRO_HIGH_WATER, or 20000.
    keep_days
        Delete jobs, with all their objects in the store, this many days after they finished or
        were cancelled, within a minute of that time; default: never. producer jobs shows when.
    metrics
        Address of its HTTP server, such as 0.0.0.0:9808 for all interfaces; "" for none. Default:
        VIRNUCPRO_METRICS, or 127.0.0.1:9808. It has /metrics for Prometheus, /healthz, and
        /demand?model=MODEL&precision=fp16 for an autoscaler.
    pod_costs
        In a pod of Kubernetes: mark the pods of busy workers, so that a scale-in ends idle ones
        first (controller.kubernetes.io/pod-deletion-cost). Needs the right to patch pods/status.
        Default: VIRNUCPRO_POD_COSTS, or not.
    log_format
        text, or json for one JSON object in each line; default: VIRNUCPRO_LOG_FORMAT, or text.
    log_level
        Least level of lines: debug, info, warning or error; default: VIRNUCPRO_LOG_LEVEL, or info.
    """
    start_logs("keeper", log_format, log_level)
    # SIGTERM may interrupt any step: the next keeper can repeat it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    fleet = Fleet(broker=broker, store=store, high_water=high_water)
    settings = fleet.settings
    ledger = Ledger(lasting_client(settings.broker_url))
    kept = Keeper(
        fleet.store,
        ledger,
        publisher_of(settings, ledger),
        keep=None if keep_days is None else timedelta(days=keep_days),
    )
    pages = KeeperPages(settings.broker_url, kept)
    kept.on_event = partial(on_event, pages.own)
    if pod_costs or settings.pod_costs:
        kept.pod_costs = pod_costs_of(kept, pages.own)
    with suppress(KeyboardInterrupt):
        if address := metrics_address(metrics, settings.metrics):
            serve("--metrics", address, pages.handlers)
        address_of_redis = RedisAddress.parse(settings.broker_url)
        wait_until_usable(address_of_redis, on_wait=pages.own.turn)
        check_rights(ledger, address_of_redis)
        log.info("Keeping the jobs of %s.", fleet.store.url)
        warn_of_eviction(ledger)
        keep_on(kept, pages.own)
    if kept.acting:
        with suppress(RedisError):
            kept.stop()


def metrics_address(option: str | None, setting: str | None) -> str:
    """Return the address of the HTTP server; empty for none."""
    return next(text for text in (option, setting, DEFAULT_ADDRESS) if text is not None)


def pod_costs_of(keeper: Keeper, metrics: KeeperMetrics) -> "PodCosts":
    """Return what sets the deletion costs of workers' pods.

    Raises:
        UserError: this process cannot ask the API of Kubernetes.
    """
    from producer.scheduling.pod_costs import PodCosts
    from producer.scheduling.pods import Pods

    pods = Pods.of_this_pod()
    return PodCosts(keeper.ledger, keeper.one_by_one, pods, metrics.count_pod_cost)


def on_event(metrics: KeeperMetrics, event: Event) -> None:
    log_event(log, event)
    metrics.count(event)


def check_rights(ledger: Ledger, address: RedisAddress) -> None:
    """Check that Redis gives this user what a keeper needs, as soon as it answers.

    Raises:
        UserError: it does not, and what is lacking.
    """
    with suppress(RedisError, OSError):  # it is gone again; the first step waits for it
        found = rights(ledger.redis, address, "producer")
        if found.outcome is Outcome.FAILED:
            raise UserError(
                f"The Redis at {address}: {found.text}, which a keeper needs. Name a user that may "
                f"(keeper in deploy/redis/users.acl), or give this one the rights: {found.advice}"
            )


def warn_of_eviction(ledger: Ledger) -> None:
    with suppress(RedisError):  # some servers do not support INFO
        if policy := eviction_policy(ledger.redis):
            log.warning(
                "This Redis evicts keys when it is full (maxmemory-policy %s), leases and results "
                "included: set it to noeviction.",
                policy,
            )


def keep_on(keeper: Keeper, metrics: KeeperMetrics) -> NoReturn:
    """Keep jobs going until the process is interrupted; say once what it waits for."""
    said = ""
    while True:
        try:
            with metrics.step(keeper):
                keeper.step()
            said = ""
        except (RedisError, StoreError) as error:
            if str(error) != said:
                log.warning("Waiting: %s", error)
            said = str(error)
        time.sleep(STEP_SECONDS)
