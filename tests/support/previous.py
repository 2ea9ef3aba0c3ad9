"""The version before, whose processes may run beside those of this one."""

import io
import subprocess
import tarfile
from pathlib import Path

PREVIOUS = "bdbdeb739c8f863fd700a385f066c943e88c74c1"

ROOT = Path(__file__).parents[2]


def checkout_previous(folder: Path) -> Path | None:
    """Write the packages of the version before into a folder; None if the history is not here."""
    archive = subprocess.run(
        ["git", "archive", PREVIOUS, "common", "producer", "workers", "virnucpro_fleet"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        return None
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder
