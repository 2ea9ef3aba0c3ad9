"""Recorded validations, and the verdict that a worker reads from them.

A validation is one JSON object in the user's cache folder, and in the fleet's store if there is
one: ``validations/<fingerprint>.<precision>.<device>.json``. The newest copy counts. A record is
valid for one kind of device only.
"""

import logging
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from pydantic import AwareDatetime

from common.errors import UserError
from common.paths import cache_folder
from common.rungs import Rung
from common.store import FileStore, ObjectNotFoundError, Store, StoreError, open_store
from common.wire.messages import Document
from workers.runtime.device import CPU, device_name
from workers.validation.statistics import FLOOR, Comparison

log = logging.getLogger(__name__)


class Verdict(Document):
    """The part of a validation that a worker reads."""

    model: str  # ModelSource.text
    weights: str | None  # their source, if the model's name does not say it
    fingerprint: str
    precision: Rung
    device: str
    date: AwareDatetime
    passed: bool
    failures: tuple[str, ...]  # figures that are out of bounds in any comparison
    cosine_min: float | None  # of all comparisons; None: one has no finite sequence
    worst: str  # the set and the comparison with ``cosine_min``
    nan: int  # number of values that are NaN, in all embeddings
    inf: int

    @property
    def key(self) -> str:
        """The key of the validation's record."""
        return record_key(self.fingerprint, self.precision, self.device)

    @property
    def command(self) -> str:
        """The command that repeats the validation."""
        weights = ["--weights", self.weights] if self.weights else []
        device = ["--device", "cpu"] if self.device == CPU else []
        options = ["--model", self.model, *weights, "--precision", self.precision, *device]
        return shlex.join(["worker", "validate", *options])

    @property
    def summary(self) -> str:
        """The figures behind the verdict, in a few words."""
        if self.cosine_min is None:
            cosine = "no finite embedding"
        else:
            cosine = f"smallest cosine {self.cosine_min:.6f} (floor {FLOOR})"
        found = f"{cosine} in {self.worst}; {self.nan:,} NaN, {self.inf:,} Inf"
        return f"{found}; out of bounds: {', '.join(self.failures)}" if self.failures else found


class ValidatedSet(Document):
    """A set of sequences, by name and the letters of each sequence."""

    name: str
    lengths: tuple[int, ...]


class Compared(Document):
    """The comparison of one set's embeddings, computed in two ways."""

    set: str
    measured: str  # such as "fp16 packed"
    reference: str
    passed: bool
    failures: tuple[str, ...]
    figures: Comparison

    @property
    def title(self) -> str:
        return f"{self.measured} against {self.reference}"


class Validation(Verdict):
    """A validation in full: the record, and what ``--json`` prints."""

    version: int = 1
    random_weights: bool
    unit: str  # of lengths: residues or bases
    versions: dict[str, str]
    thresholds: dict[str, float]
    seed: int
    sets: tuple[ValidatedSet, ...]
    comparisons: tuple[Compared, ...]

    @property
    def json_text(self) -> str:
        return self.model_dump_json(indent=2)


def record_key(fingerprint: str, precision: Rung, device: str) -> str:
    """Return the name of a validation's record; ``device`` is a full name, such as NVIDIA H200."""
    slug = re.sub("[^a-z0-9]+", "-", device.lower()).strip("-")
    return f"validations/{fingerprint}.{precision}.{slug}.json"


class UserCache(FileStore):
    """The user's cache folder, which is of one machine: it needs no marker of a store."""

    def __init__(self) -> None:
        super().__init__(cache_folder())

    def _check_marker(self) -> None:
        pass

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)  # the root too


def record_stores(store_url: str | None) -> list[Store]:
    """Return the stores of records: the user's cache, and the fleet's store if it has one."""
    return [UserCache(), *([open_store(store_url)] if store_url else [])]


def write_record(validation: Validation, stores: Iterable[Store]) -> list[str]:
    """Record a validation and return its URLs; a store that cannot be written is a warning."""
    written = []
    for store in stores:
        try:
            store.check_exists()  # only a submit makes a store: this one may not be mounted here
            store.put(validation.key, validation.json_text.encode())
            written.append(f"{store.url}/{validation.key}")
        except StoreError as error:
            log.warning("This validation is not recorded in %s: %s", store.url, error)
    return written


def refusal(fingerprint: str, precision: Rung, device: str, stores: Sequence[Store]) -> str | None:
    """Return a message that says why weights must not be served; None if they may be.

    They may be served if no validation is recorded. An unreadable record is a warning.
    """
    key = record_key(fingerprint, precision, device)
    found = [
        (verdict, store) for store in stores if (verdict := read_verdict(key, store)) is not None
    ]
    if not found:
        return None
    newest, store = max(found, key=lambda pair: pair[0].date)
    if newest.passed:
        return None
    others = "precision fp32" if precision is Rung.BF16 else "precision fp32 or bf16"
    return (
        f"These weights (fingerprint {fingerprint}) must not be served in {precision} on {device}: "
        f"their validation there of {newest.date:%Y-%m-%d %H:%M %Z} failed, {newest.summary}.\n"
        f"The record is {store.url}/{key}.\n"
        f"Serve them with {others}, or validate again: {newest.command}"
    )


def refuse_unfit(
    fingerprint: str, precision: Rung, device: str | torch.device, store_url: str | None = None
) -> None:
    """Check that no validation found weights unfit for a precision on a kind of device.

    Args:
        store_url: the fleet's store, where records may be beside those in the user's cache.

    Raises:
        UserError: one did.
    """
    if precision is Rung.FP32:  # what the others are compared with
        return
    name = device_name(device)
    reason = refusal(fingerprint, precision, name, record_stores(store_url))
    if reason is not None:
        raise UserError(reason)


def read_verdict(key: str, store: Store) -> Verdict | None:
    """Return a recorded verdict; None, with a warning, if it cannot be read."""
    try:
        verdict = Verdict.model_validate_json(store.get(key))
        if verdict.key != key:
            raise ValueError(f"it belongs at {verdict.key}")
        return verdict
    except ObjectNotFoundError:
        return None
    except StoreError as error:
        log.warning("No validation can be read: %s", error)
    except ValueError as error:
        log.warning(
            "%s/%s is not a readable validation and is ignored (%s). Validate again to replace it.",
            store.url,
            key,
            str(error).splitlines()[0],
        )
    return None
