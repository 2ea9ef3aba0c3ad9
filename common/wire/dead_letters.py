"""Messages that no worker could read."""

import time

from pydantic import Field

from common.wire.messages import Document


class DeadLetter(Document):
    """A message that was taken out of a queue because no worker could do anything with it."""

    time: float = Field(default_factory=time.time)
    queue: str
    worker: str
    reason: str
    message: str  # its beginning, as text
