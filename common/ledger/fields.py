"""Constants and types of the ledger."""

from typing import Literal

import numpy as np
import numpy.typing as npt

#: Seconds a lease lasts without renewal, and between renewals.
LEASE_SECONDS = 30
RENEW_SECONDS = 10

#: Seconds a worker's entry lasts without an announcement.
WORKER_TTL_SECONDS = 30

#: Seconds the staging lock and the keeper's lock last without renewal.
STAGING_SECONDS = 60
KEEPING_SECONDS = 15

#: Prefix of the name of a keeper that gives way to any other.
STEPS_BACK = "watch/"

#: Events of a job, and dead letters, that are kept; older ones are in the logs.
EVENTS_KEPT = 1000

#: What is done about a row that is not finite: retry it at the next rung, or stop the job.
OnInstability = Literal["retry", "fail"]

Field = str | int | float
Flags = npt.NDArray[np.bool_]
