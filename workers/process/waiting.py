"""Waiting for the server that has a model's weights."""

import logging
import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

from common.errors import UnavailableError
from common.local.fleet import ATTENDED
from common.wire.first_contact import SAY_SECONDS

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two attempts to get weights whose server does not answer.
WAIT_SECONDS = 10.0


def once_available(load: Callable[[], T], on_wait: Callable[[], None]) -> T:
    """Return what is loaded, once the server that has the weights answers.

    As with Redis, a worker that is started before it is there waits, however long that takes.

    Args:
        on_wait: called after each attempt that fails.

    Raises:
        UnavailableError: it does not, and the worker is of a local fleet, whose user waits.
    """
    said = -math.inf
    while True:
        try:
            return load()
        except UnavailableError as error:
            if ATTENDED in os.environ:
                raise
            if time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                log.warning("Waiting for the weights. %s", error)
        on_wait()
        time.sleep(WAIT_SECONDS)
