"""``producer keeper`` as in a pod, with the service account in a folder of a test."""

import os
from pathlib import Path

from producer import cli
from producer.scheduling import pods

if __name__ == "__main__":
    pods.SERVICE_ACCOUNT = Path(os.environ["SERVICE_ACCOUNT"])
    cli.main()
