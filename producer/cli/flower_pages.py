"""Flower with the settings of this fleet. It can be imported only where Flower is installed."""

import asyncio
import logging
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import flower.urls
from celery import Celery
from celery.states import FAILURE
from flower.app import Flower
from flower.options import options
from flower.utils import prepend_url
from flower.views import BaseHandler
from redis import Redis
from redis.exceptions import RedisError
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

from common.errors import UserError
from common.http import is_loopback
from common.ledger.demand import PoolDemand
from common.ledger.workers import WORKER_PREFIX, read_worker
from common.text import counted
from common.wire.address import RedisAddress
from common.wire.celery_app import ShownBatch, make_celery
from common.wire.first_contact import wait_until_usable
from common.wire.queues import KEY_PREFIX, pool_queues
from common.wire.redis_client import redis_client

log = logging.getLogger(__name__)

#: Tasks that are kept in memory, of which each takes 6 KB.
MAX_TASKS = 10_000

#: Seconds after which a worker that sends no heartbeats is removed from the list of workers.
PURGE_SECONDS = 3600

#: Upper ends in seconds of the buckets of the tasks' times. A batch is cut for about a second, and
#: on a slow device takes minutes.
RUNTIME_BUCKETS = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0]

#: The columns of the list of tasks; see ``shown_task``. Flower shows the exception of a failed task
#: without escaping it, so that column stays hidden.
COLUMNS = ("name", "state", "kwargs", "result", "received", "runtime", "worker")

#: The folders of a path in an outcome, which would hide the rest of it in the list.
FOLDERS = re.compile(r"\b\w+://\S*/|(?<!\S)/\S*/")

#: Seconds between two attempts to connect again.
RECONNECT_SECONDS = 5

#: Seconds to wait for the lengths of the queues.
ANSWER_SECONDS = 5.0


def serve_pages(
    broker_url: str, host: str, port: int, *, logins: Sequence[str], prefix: str
) -> None:
    """Serve Flower's pages until SIGINT or SIGTERM.

    Args:
        logins: each ``USER:PASSWORD``; without any, everyone who reaches it may read.
        prefix: path before all pages.

    Raises:
        UserError: the address is in use, or not one of this machine.
    """
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    set_options(host, port, logins, prefix)
    settings = dict(flower.urls.settings)
    if prefix:
        for name in ("login_url", "static_url_prefix"):
            settings[name] = prepend_url(settings[name], prefix)
    address, kind = RedisAddress.parse(broker_url), Flower if logins else LocalFlower
    pages = kind(capp=make_celery(broker_url, []), options=options, **settings)
    pages.broker_uri = str(address)  # without a login
    pages.events.capp = listener(broker_url)
    queues = FleetQueues(redis_client(broker_url, answer_seconds=ANSWER_SECONDS, retries=0))
    BaseHandler.get_broker = lambda _: queues
    try:
        pages.start_http_server()
    except OSError as error:
        raise UserError(f"--address {place}: {error.strerror}. Give a free HOST:PORT.") from error
    logging.getLogger("tornado.access").setLevel(logging.WARNING)  # each page asks every second
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)  # warns if there is no worker
    who = "asks for a login" if logins else "is open to all users of this machine"
    log.info("Flower is at http://%s/%s and %s. It only shows.", place, prefix, who)
    run(pages, address)


def listener(broker_url: str) -> Celery:
    """Return the application with which Flower hears events: it connects again within seconds.

    Flower by itself waits twice as long after each attempt, after an hour without Redis an hour.
    """
    app = make_celery(broker_url, [])
    for_ever = {"connect_retries_timeout": None, "interval_max": RECONNECT_SECONDS}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **for_ever}
    return app


def run(pages: Flower, address: RedisAddress) -> None:
    """Answer requests until SIGINT or SIGTERM; hear events once Redis answers.

    Raises:
        UserError: Redis cannot be used.
    """
    problems: list[UserError] = []

    async def hear_events() -> None:
        try:
            await asyncio.to_thread(wait_until_usable, address, as_reader=True)
        except UserError as error:
            problems.append(error)
            pages.io_loop.stop()
            return
        pages.events.start()
        pages.started = True
        pages.update_workers()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: pages.io_loop.add_callback_from_signal(pages.io_loop.stop))
    pages.io_loop.add_callback(hear_events)
    pages.io_loop.start()
    for problem in problems:
        raise problem


def set_options(host: str, port: int, logins: Sequence[str], prefix: str) -> None:
    """Set Flower's options, which are those of its process; its variables are not read."""
    options.address, options.port, options.url_prefix = host, port, prefix
    options.basic_auth = list(logins)
    options.read_only = True
    options.enable_events = False  # workers send them unasked
    options.max_tasks = MAX_TASKS
    options.purge_offline_workers = PURGE_SECONDS
    options.inspect_timeout = 1000.0
    options.task_runtime_metric_buckets = RUNTIME_BUCKETS
    options.tasks_columns = ",".join(COLUMNS)
    options.format_task = shown_task


class LocalFlower(Flower):  # type: ignore[misc]
    """Flower without a login: it answers at the names of this machine alone.

    Otherwise a site could have a browser on this machine read it, under a name that leads here.
    """

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
        if is_loopback(request.host_name.strip("[]")):
            return super().find_handler(request, **options)
        return self.get_handler_delegate(request, OtherName)


class OtherName(RequestHandler):
    """The answer to requests by another name."""

    def prepare(self) -> None:
        self.set_status(403)
        self.finish("Without a login, Flower answers only as localhost, 127.0.0.1 or [::1].\n")


class FleetQueues:
    """The lengths of the queues for Flower, in place of its own connection to Redis, which knows
    neither user nor database of a Unix socket, and of queues only those of workers.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.demand = PoolDemand(redis)

    async def queues(self, _: Iterable[str]) -> list[dict[str, Any]]:
        """Return the queues of workers and of jobs that have batches left, each with its length.

        Flower gives the names that workers told it, which it asks at its start alone.
        """
        try:
            return await asyncio.to_thread(self._queues)
        except RedisError as error:
            raise HTTPError(503, "Redis does not answer: %s", error) from error

    def _queues(self) -> list[dict[str, Any]]:
        names = sorted({*self._of_workers(), *self._of_jobs()})
        with self.redis.pipeline(transaction=False) as together:
            for name in names:
                together.llen(f"{KEY_PREFIX}{name}")
            lengths = together.execute()
        return [
            {"name": name, "messages": length, "messages_ready": length}
            for name, length in zip(names, lengths, strict=True)
        ]

    def _of_workers(self) -> Iterator[str]:
        # Without the registry's script, which a user of Redis that only reads may not run.
        keys = list(self.redis.scan_iter(f"{WORKER_PREFIX}*", count=1000, NEVER_DECODE=True))
        texts = self.redis.execute_command("MGET", *keys, NEVER_DECODE=True) if keys else ()
        for text in texts:
            worker = read_worker((text or b"").decode(errors="replace"))
            yield from () if worker is None else worker.queues

    def _of_jobs(self) -> Iterator[str]:
        for pool in self.demand.read() or ():
            with suppress(ValueError):  # of a newer version
                yield from pool_queues(pool)


def shown_task(task: Any) -> Any:
    """Change a copy of a task to what the list shows of it: job, batch, and outcome."""
    about = ShownBatch.read(task.kwargs)
    if about is not None:
        tokens = "" if about.tokens is None else f", {about.tokens:,} tokens"
        task.name = about.job
        task.kwargs = f"batch {about.batch}, {about.rung}, {counted(about.rows, 'row')}{tokens}"
    if task.state == FAILURE:
        task.result = FOLDERS.sub("…/", task.exception or "")
    elif task.rejected and task.rejected >= (task.started or 0) and not task.succeeded:
        task.state = "REQUEUED"
    return task
