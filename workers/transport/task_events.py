"""Celery's events of tasks, for Flower: many in one message instead of one in each."""

from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

#: Seconds that an event waits for others, if there are not many before.
TOGETHER_SECONDS = 0.5

#: Events after which the others are not waited for.
TOGETHER = 100


class EventsTogether(bootsteps.StartStopStep):  # type: ignore[misc]
    """Has a worker send its tasks' events now and then, not after every turn of its loop."""

    requires = (Events,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timer: Any = None

    def start(self, consumer: Any) -> None:
        events = consumer.event_dispatcher
        events.on_send_buffered, events.buffer_limit = None, TOGETHER
        self.timer = consumer.timer.call_repeatedly(TOGETHER_SECONDS, consumer._flush_events)

    def stop(self, consumer: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()
        with suppress(KombuError, RedisError, OSError):
            consumer.event_dispatcher.flush()
