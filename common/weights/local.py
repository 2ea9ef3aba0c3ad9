"""The place of weights on this machine, wherever they come from."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from common.adapters import is_adapter
from common.errors import UnavailableError
from common.model_bucket import Listing, listing_of, look, split_file
from common.model_digest import model_digest
from common.model_files import model_files
from common.model_source import ModelSource
from common.paths import cache_folder
from common.store import StoreError
from common.text import counted
from common.weights import hub
from common.weights.copies import Record, complete_copy, make_copy

log = logging.getLogger(__name__)

GIGABYTE = 1e9


@dataclass(frozen=True)
class LocalWeights:
    """A folder or a file on this machine that a model is loaded from."""

    path: Path
    #: As ``ModelSource.digest`` has it, of the weights that are in the path; None: not known yet.
    digest: str | None = None

    def files(self) -> list[Path]:
        """Return the files that the model is loaded from."""
        return model_files(self.path)


def local_weights(source: ModelSource) -> LocalWeights | None:
    """Return the place of weights on this machine, to which they are downloaded if need be.

    Returns:
        None for random weights.

    Raises:
        UnavailableError: who has them does not answer now.
        UserError: they are not to be had.
    """
    if source.is_random:
        return None
    if source.is_path:
        if is_adapter(Path(source.text)):
            local_weights(source.base())
        return LocalWeights(Path(source.text))
    if source.is_stored:
        return from_bucket(source)
    return LocalWeights(hub.find_or_download(source))


def from_bucket(source: ModelSource) -> LocalWeights:
    """Return the copy of a bucket's weights in the cache, which is made unless it is there.

    Raises:
        UserError: the bucket has no such model, or the cache cannot be written.
    """
    folder = copies_of(source)
    try:
        listing = look(source.text)
    except StoreError as error:
        found = latest_copy(source, folder)
        if found is None:
            raise
        log.warning("%s The copy %s in the cache is used.", error, found.version)
    else:
        place = folder / listing.digest
        found = make_copy(place, source.text, listing.digest, lambda to: download(listing, to))
    place = folder / found.version
    return LocalWeights(main_file(place, found), found.version)


def copies_of(source: ModelSource) -> Path:
    """Return the folder of the copies of a bucket's weights, each in a folder named by version."""
    slug = f"{source.name}-{hashlib.sha256(source.text.encode()).hexdigest()[:16]}"
    return cache_folder() / "weights" / slug


def latest_copy(source: ModelSource, folder: Path) -> Record | None:
    """Return the record of the copy that was made last; None if there is no complete one."""
    try:
        places = sorted(folder.iterdir(), key=lambda place: place.stat().st_mtime, reverse=True)
    except OSError:
        return None
    found = (complete_copy(place, source.text, place.name) for place in places)
    return next((record for record in found if record is not None), None)


def main_file(folder: Path, record: Record) -> Path:
    """Return what a model is loaded from: the folder, or the only file in it."""
    return folder if "config.json" in record.sizes else folder / next(iter(record.sizes))


def download(listing: Listing, folder: Path) -> None:
    """Download the objects of a listing to a folder.

    Raises:
        UnavailableError: they did not come whole, or were replaced meanwhile.
    """
    size = f"{listing.bytes / GIGABYTE:,.2f} GB"
    log.info("Downloading %s (%s, %s).", listing.url, counted(len(listing.files), "file"), size)
    for file in listing.files:
        listing.bucket.download(file.key, folder / file.key)
        if (folder / file.key).stat().st_size != file.size:
            raise UnavailableError(
                f"{listing.bucket.url}/{file.key} did not come whole. Try again."
            )
    if listing_of(listing.url, listing.bucket, split_file(listing.url)[1]) != listing:
        raise UnavailableError(f"{listing.url} changed while it was downloaded. Try again.")


def digest_of(source: ModelSource, local: LocalWeights) -> str | None:
    """Return the digest of weights that are here, as workers and producers compare it."""
    if local.digest is not None or not source.is_path:
        return local.digest
    return model_digest(local.files())
