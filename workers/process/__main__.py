"""``python -m workers.process MODEL PRECISION``: a worker process, as its supervisor starts it."""

from common.logs import start_logs

start_logs("worker")

# Only now, since PyTorch may warn while it is imported, or cannot be: that is a line of the log.
from workers.process.worker import main  # noqa: E402

main()
