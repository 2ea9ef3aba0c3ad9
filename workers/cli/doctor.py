"""``worker doctor``."""

import json
import logging
import sys
from typing import Annotated

from cyclopts import Parameter

from common.checks.check import Group, as_document, passed, run_checks
from common.checks.doctor import read_settings, shared_groups, weights_group
from common.model_source import ModelSource
from common.streams import can_print
from workers.process.device_check import check_device

#: Seconds that PyTorch and the driver of all GPUs of a machine may take to start.
DEVICE_SECONDS = 60.0

#: Packages that a worker has beside those of a producer.
PACKAGES = ("torch", "triton", "safetensors", "tokenizers", "huggingface_hub")

EXIT_FAILED = 1


def doctor(
    *,
    model: str | None = None,
    revision: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    broker: str | None = None,
    store: str | None = None,
) -> None:
    """Look whether a worker could serve on this machine; say what to do where it could not.

    Nothing is left behind in Redis or in the store. Exit code 0: nothing is wrong; 1: something is.

    Parameters
    ----------
    model
        Also look for this model's weights, as --model of start names it.
    revision
        Branch, tag or commit of the model on the Hugging Face hub.
    as_json
        Print one JSON document.
    broker
        Redis URL; default: VIRNUCPRO_BROKER_URL, or redis://localhost:6379/0.
    store
        Folder or s3://bucket/prefix; default: VIRNUCPRO_STORE.
    """
    logging.getLogger().setLevel(logging.WARNING)
    settings = read_settings(broker=broker, store=store)
    source = None if model is None else ModelSource.parse(model, revision)
    groups = shared_groups(settings, "worker", *PACKAGES)
    groups.append(Group("device", lambda: check_device(source), DEVICE_SECONDS))
    if source is not None:
        groups.append(weights_group(source, "worker"))
    checks = run_checks(groups)
    if as_json:
        sys.stdout.write(json.dumps(as_document("worker", checks), indent=1) + "\n")
    else:
        plain = not can_print("✓✗")
        for check in checks:
            sys.stdout.write(check.line(plain=plain) + "\n")
    if not passed(checks):
        sys.exit(EXIT_FAILED)
