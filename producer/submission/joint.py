"""The name of a joint job, which follows from its jobs."""

import hashlib
import json
from collections.abc import Sequence

from common.job.joint import FramesReport


def joint_name(jobs: Sequence[str], frames: FramesReport | None) -> str:
    """Return the name of the joint job of some jobs; equal ones get equal names.

    Args:
        jobs: their names, in their order.
        frames: the counts of the translation that their input comes from.
    """
    content = [jobs, None if frames is None else frames.model_dump(mode="json")]
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{jobs[0].rpartition('-')[0]}-{fingerprint[:12]}-all"
