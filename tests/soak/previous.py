"""The version before, run beside this one by a soak test."""

import io
import subprocess
import tarfile
from pathlib import Path

#: The version that this one must share a fleet with.
PREVIOUS = "28dd18f"

ROOT = Path(__file__).parents[2]


def checkout_previous(folder: Path, commit: str = PREVIOUS) -> Path | None:
    """Write the program of an earlier commit into a folder; None if the history is not here."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, "common", "producer", "workers"],
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        return None
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder
