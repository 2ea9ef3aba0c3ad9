"""``producer doctor``."""

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from common.checks.check import as_document, passed, run_checks
from common.checks.doctor import read_settings, shared_groups, weights_group
from common.model_source import ModelSource
from common.streams import can_print
from producer.cli.options import EXIT_FAILED, Broker, StoreUrl
from producer.terminal.console import print_line


def doctor(
    *,
    model: str | None = None,
    revision: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Look whether this machine can submit, watch and keep jobs; say what to do where it cannot.

    Nothing is left behind in Redis or in the store. Exit code 0: nothing is wrong; 1: something is.

    Parameters
    ----------
    model
        Also look for this model's weights, as --model of submit names it.
    revision
        Branch, tag or commit of the model on the Hugging Face hub.
    as_json
        Print one JSON document.
    """
    settings = read_settings(broker=broker, store=store)
    groups = shared_groups(settings, "producer")
    if model is not None:
        groups.append(weights_group(ModelSource.parse(model, revision), "producer"))
    checks = run_checks(groups)
    if as_json:
        sys.stdout.write(json.dumps(as_document("producer", checks), indent=1) + "\n")
    else:
        plain = not can_print("✓✗")
        for check in checks:
            print_line(check.line(plain=plain))
    if not passed(checks):
        sys.exit(EXIT_FAILED)
