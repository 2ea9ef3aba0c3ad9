"""Checks of a model's weights, which are not loaded."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.adapters import is_adapter
from common.bounded_call import within
from common.checks.check import Check, failed, ok, warning
from common.checks.rights import Role
from common.errors import UserError
from common.memory import is_out_of_memory
from common.model_bucket import look
from common.model_digest import model_digest
from common.model_files import model_files
from common.model_source import ModelSource
from common.model_specs import ModelSpec
from common.store import StoreError
from common.text import counted
from common.weights import hub
from common.weights.copies import complete_copy
from common.weights.hub import HubModel
from common.weights.local import copies_of, main_file

NAME = "weights"

#: Seconds for which files are read for their digest: less than the whole check has.
DIGEST_SECONDS = 40.0

#: Bytes of the number at the beginning of a safetensors file, which tells its header's length.
LENGTH_BYTES = 8

GIGABYTE = 1e9


def check_weights(source: ModelSource, role: Role) -> Iterator[Check]:
    """Look for a model's weights where a worker would, and at their files; a producer needs none.

    What it can see of them tells it the model's shape, and jobs of other weights apart.
    """
    if source.is_random:
        yield ok(NAME, f"{source.text}: random, so nothing is needed")
    elif role == "producer":
        yield seen_by_producer(source)
    elif source.is_path:
        yield files_in(Path(source.text), source.text)
        if is_adapter(Path(source.text)) and not source.base().is_path:
            yield on_hub(source.base())
    elif source.is_stored:
        yield in_bucket(source)
    else:
        yield on_hub(source)


def seen_by_producer(source: ModelSource) -> Check:
    if not source.is_path and not source.is_stored:
        return ok(NAME, f"{source.text}: only workers need them")
    spec = source.spec()
    shape = "" if spec is None else f"{described(spec)}, "
    try:
        # That of a bucket is of its listing, and S3 has limits of its own.
        digest = source.digest() if source.is_stored else within(DIGEST_SECONDS, source.digest)
    except TimeoutError:
        return digest_takes_long(f"{source.text}: {shape}{size_of(source.files())}", "a submit")
    if digest is None:
        return warning(
            NAME,
            f"{source.text} cannot be seen from here: only workers can tell what it is",
            "if it is a model of DNA, submit where it can be seen",
        )
    return ok(NAME, f"{source.text}: {shape}digest {digest}")


def described(spec: ModelSpec) -> str:
    return f"{spec.family.name} with {spec.layers} layers of {spec.dim}"


def files_in(path: Path, what: str, digest: str | None = None) -> Check:
    """Look at the files of a model on this machine.

    Args:
        digest: of the files, if they have been read for it.
    """
    files = model_files(path)
    if not files:
        return failed(
            NAME,
            f"{path}: no such folder or file with weights, or user {os.getuid()} may not read them",
            "mount it, or correct --model",
        )
    if damage := next(filter(None, map(damage_of, files)), None):
        return failed(NAME, damage, "copy or download the file again")
    spec = ModelSource(str(path)).spec()
    shape = "" if spec is None else f", {described(spec)}"
    found = f"{what}: {size_of(files)}{shape}"
    try:
        digest = digest or within(DIGEST_SECONDS, lambda: model_digest(files))
    except TimeoutError:
        return digest_takes_long(found, "a worker")
    return ok(NAME, f"{found}, digest {digest}")


def digest_takes_long(found: str, who: str) -> Check:
    return warning(
        NAME,
        f"{found}; {DIGEST_SECONDS:g} s are too short to read them to their end for their digest",
        f"{who} reads them too, and takes as long the first time: see whether the disk or network "
        "is as fast as it should be",
    )


def size_of(files: Sequence[Path]) -> str:
    size = sum(file.stat().st_size for file in files)
    return f"{counted(len(files), 'file')}, {size / GIGABYTE:,.2f} GB"


def damage_of(file: Path) -> str | None:
    """Return what is wrong with a safetensors file, by its header; None for any other file."""
    if file.suffix != ".safetensors":
        return None
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(LENGTH_BYTES), "little")
            if length > size:
                return f"{file} has {size:,} bytes, less than its header"
            header = json.loads(opened.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name[:2] != "__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{file} is not a safetensors file"
    expected = LENGTH_BYTES + length + max(ends, default=0)
    return None if size == expected else f"{file} has {size:,} of {expected:,} bytes"


def in_bucket(source: ModelSource) -> Check:
    try:
        listing = look(source.text)
    except StoreError as error:
        return failed(NAME, str(error).rstrip("."), "allow s3:ListBucket and s3:GetObject there")
    place = copies_of(source) / listing.digest
    size = f"{counted(len(listing.files), 'object')}, {listing.bytes / GIGABYTE:,.2f} GB"
    try:
        found = within(DIGEST_SECONDS, lambda: complete_copy(place, source.text, listing.digest))
    except TimeoutError:
        return digest_takes_long(f"{source.text}: {size}, as in the cache {place}", "a worker")
    if found is not None:
        what = f"{source.text}, as in the cache {place}"
        return files_in(main_file(place, found), what, found.content)
    return warning(
        NAME,
        f"{source.text}: {size}, digest {listing.digest}, not yet in the cache {place}",
        f"a worker downloads it when it starts, as does: worker download --model {source.text}",
    )


def on_hub(source: ModelSource) -> Check:
    hub.require_hub()
    model = HubModel(source)
    cached = model.cached()
    if cached is not None:
        return files_in(cached, f"{model.shown}, commit {cached.name}, in the cache {hub.cache()}")
    try:
        commit = model.latest_commit()
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return failed(
            NAME,
            f"{hub.not_here(model)}, and {hub.endpoint()} does not give them "
            f"({hub.describe(error)})",
            hub.how_to_get(source),
        )
    return warning(
        NAME,
        f"{model.shown}, commit {commit} on {hub.endpoint()}, not yet in the cache {hub.cache()}",
        f"a worker downloads it when it starts, as does: worker download --model {source.text}",
    )
