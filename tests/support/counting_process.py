"""A process that records metrics as a worker's does: ``DEVICE BATCHES GAUGE``, then ends or waits.

With ``wait`` as its fourth argument it says that it is done, and waits.
"""

import os
import sys
import time

from workers.process.environment import METRICS_PLACE
from workers.runtime import metrics


def main(device: str, batches: int, running: int) -> None:
    metrics.start(os.environ[METRICS_PLACE], model="m", device=device)
    metrics.add("batches_total", batches, "fp16", "done")
    metrics.put("running_batches", running)
    for _ in range(batches):
        with metrics.stage("fetch"):
            pass
    if sys.argv[4:] == ["wait"]:
        os.write(1, b"done\n")
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
