"""Python's own hook at its start: with this folder on its path, a process has the time wrong."""

import os
import time

SKEW = float(os.environ["CLOCK_SKEW_SECONDS"])

right_time = time.time

time.time = lambda: right_time() + SKEW
