"""The folders in which a worker keeps what it downloads or compiles."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

CACHES = """
from common.paths import cache_folder
from common.weights.hub import cache
print(cache_folder(), cache(), sep="\\n")
"""


def caches_with(variables: Mapping[str, str]) -> list[Path]:
    """Return the folders of a user without a home, with these environment variables alone."""
    done = subprocess.run(
        [sys.executable, "-c", CACHES],
        env={"PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return [*map(Path, done.stdout.splitlines()), Path(variables["TRITON_CACHE_DIR"])]
