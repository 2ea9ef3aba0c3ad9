"""A worker whose batches have the outcomes that a test names: ``URL QUEUE OUTCOME…``.

The batch of index n has the n-th of ``done``, ``unstable``, ``failed``, ``skipped``, ``requeued``
(once; then it is done) and ``broken`` (an error of the program). It logs as a worker does.
"""

import logging
import sys

from common.ledger.claims import ClaimOutcome
from common.ledger.ledger import Ledger
from common.settings import Settings
from common.streams import log_to_stderr
from common.wire.celery_app import make_celery
from common.wire.messages import Batch
from common.wire.redis_client import connect
from tests.support.jobs import failed, ok, unstable
from workers.batches.outcome import BatchOutcome, outcome_of, refused_claim
from workers.batches.retry_policy import RequeueError
from workers.transport.consumer import consume
from workers.transport.guard import Guard, install_guard


def main(url: str, queue: str, *outcomes: str) -> None:
    log_to_stderr(logging.INFO, "%(asctime)s %(levelname)s %(message)s")
    app = make_celery(url, [queue])
    guard = Guard(Ledger(connect(url)), Settings.read().message_keys(), "w")
    install_guard(app, guard)
    guard.note_turn()
    requeued: set[int] = set()

    def run(batch: Batch) -> BatchOutcome:
        match outcomes[batch.index]:
            case "unstable":
                return outcome_of(unstable(batch, 0, 1, 2))
            case "failed":
                return outcome_of(failed(batch).model_copy(update={"error": FAILURE}))
            case "skipped":
                return refused_claim(ClaimOutcome.HELD)
            case "requeued" if batch.index not in requeued:
                requeued.add(batch.index)
                raise RequeueError("attempt 1: no store at s3://me:s3cret@bucket")
            case "broken":
                raise ZeroDivisionError("an error of the program")
        return outcome_of(ok(batch))

    consume(app, [queue], "w", run=run, on_stop=lambda: None)


#: The error of a batch that failed: of two lines, with a login, and long.
FAILURE = f"ValueError: no use\nof s3://me:s3cret@bucket {'x' * 2000}"

if __name__ == "__main__":
    main(*sys.argv[1:])
