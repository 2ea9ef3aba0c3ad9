"""Bringing weights to this machine before a worker needs them: ``worker download``."""

import logging
from pathlib import Path

from common.errors import UserError
from common.model_bucket import look
from common.model_source import ModelSource
from common.paths import check_has_folder
from common.store import StoreError
from common.weights import hub
from common.weights.copies import Record, complete_copy, make_copy
from common.weights.hub import HubModel
from common.weights.local import download as download_objects
from common.weights.local import local_weights, main_file

log = logging.getLogger(__name__)


def download(source: ModelSource, to: Path | None = None) -> Path:
    """Download weights unless they are there; return what ``worker start --model`` takes.

    Args:
        to: a folder for the files; None: the cache in which a worker looks for them.

    Raises:
        UserError: they are not to be had, or cannot be written.
    """
    if source.is_random or source.is_path:
        what = "generated, not downloaded" if source.is_random else "on this machine already"
        raise UserError(
            f"--model {source.text}: these weights are {what}. Give a model's name, or s3://…"
        )
    if to is None:
        local = local_weights(source)
        assert local is not None
        return local.path
    check_has_folder(to, "--to")
    record = from_bucket(source, to) if source.is_stored else from_hub(source, to)
    return main_file(to.absolute(), record)


def from_bucket(source: ModelSource, to: Path) -> Record:
    try:
        listing = look(source.text)
    except StoreError:
        if found := complete_copy(to, source.text):
            return found
        raise
    return make_copy(to, source.text, listing.digest, lambda part: download_objects(listing, part))


def from_hub(source: ModelSource, to: Path) -> Record:
    """Put a revision of the hub into a folder; what is there is enough if the hub is not."""
    hub.require_hub()
    model = HubModel(source)
    there = complete_copy(to, source.text)

    def find() -> Path:
        commit = model.latest_commit()
        make_copy(to, source.text, commit, lambda part: take(model, commit, part))
        return to

    if there is None or not hub.is_settled(model):
        hub.with_fallback(model, None if there is None else to, find)
    found = complete_copy(to, source.text)
    assert found is not None, to
    return found


def take(model: HubModel, commit: str, part: Path) -> None:
    log.info("Downloading %s, commit %s.", model.shown, commit)
    model.download(commit, part)
