"""Celery's task events, for Flower: many in one message instead of one in each."""

from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

#: Seconds between two messages with events.
FLUSH_SECONDS = 0.5

#: Number of events that are sent before the time is up.
BUFFER_LIMIT = 100


class BufferedEvents(bootsteps.StartStopStep):  # type: ignore[misc]
    """Has a worker send its events at intervals, not after every turn of its loop."""

    requires = (Events,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timer: Any = None

    def start(self, consumer: Any) -> None:
        """Begin to buffer events."""
        events = consumer.event_dispatcher
        events.on_send_buffered, events.buffer_limit = None, BUFFER_LIMIT
        self.timer = consumer.timer.call_repeatedly(FLUSH_SECONDS, consumer._flush_events)

    def stop(self, consumer: Any) -> None:
        """Send what is left."""
        if self.timer is not None:
            self.timer.cancel()
        with suppress(KombuError, RedisError, OSError):
            consumer.event_dispatcher.flush()
