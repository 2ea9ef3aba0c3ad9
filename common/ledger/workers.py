"""Worker processes as the ledger lists them."""

from pydantic import BaseModel, ConfigDict

from common.rungs import Rung


class WorkerInfo(BaseModel):
    """What a worker process says of itself while it lives."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    weights: str | None  # None while they are loading
    device: str
    precision: Rung
    queues: tuple[str, ...]
