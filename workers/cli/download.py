"""``worker download``."""

import logging
import sys

from common.model_source import ModelSource
from common.weights.download import download as downloaded
from workers.cli.options import UserPath


def download(*, model: str, revision: str | None = None, to: UserPath | None = None) -> None:
    """Download a model's weights before a worker needs them, and print where they are.

    For an init container, a shared volume, or a machine without a network. Nothing but the hub or
    the bucket is needed. What is there already is not downloaded again, and what is printed is
    complete, also if an earlier run was killed.

    Parameters
    ----------
    model
        Name such as esm2_t33_650M_UR50D, or s3://bucket/key of a folder or a .pt file.
    revision
        Branch, tag or commit of the model on the Hugging Face hub, also as NAME@REVISION.
    to
        Folder for the files, for worker start --model FOLDER; default: the cache in which worker
        start --model NAME finds them (HF_HOME; for s3://, XDG_CACHE_HOME).
    """
    logging.getLogger().setLevel(logging.WARNING)  # libraries name every request
    logging.getLogger("common").setLevel(logging.INFO)
    place = downloaded(ModelSource.parse(model, revision), to)
    sys.stdout.write(f"{place}\n")
