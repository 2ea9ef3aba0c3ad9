"""The run behind ``worker validate --published``: the published proteins, embedded as in a job."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.adapters import is_adapter
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_files import weight_files
from common.model_source import ModelSource
from common.model_specs import ModelSpec
from common.rungs import Rung, should_use_fp16
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import LoadedModel, load_model, place_of
from workers.runtime.device import device_name
from workers.validation import HalfChoice, Request
from workers.validation.judge import versions
from workers.validation.published.figures import (
    VECTORS,
    Published,
    PublishedModel,
)
from workers.validation.published.judge import Installation, compare, other_files
from workers.validation.run import (
    check_shape,
    choose_device,
    choose_precision,
    describe,
    memory_explained,
    weights_of,
)

log = logging.getLogger(__name__)


class Embedded(NamedTuple):
    """The published proteins' vectors, computed here."""

    spec: ModelSpec
    fingerprint: str
    vectors: NDArray[np.float32]  # [N, 2, D], as PublishedModel.vectors; NaN if not finite


def run(request: Request, published: Published) -> Installation:
    """Compare this installation's vectors of the published proteins with the published ones.

    Args:
        request: its model, weights, precision and device; the others are of no use here.
        published: what is published.

    Raises:
        UserError: nothing is published for these weights, they or the device cannot be used, or
            memory ran out.
    """
    model = ModelSource.parse(request.model)
    source = weights_of(model, request.weights)
    check_trained(source)
    known = source.spec()
    if known is not None:  # before its weights are downloaded
        of_model(known, published)
    device = choose_device(request.device)
    place = place_of(source)
    found = {}
    for precision in chosen_precisions(request.precision, device):
        with memory_explained(source, precision, device):
            found[precision] = embed(source, place, precision, device, published)
    first = found[Rung.FP32]
    check_shape(first.spec, model, source)
    expected = of_model(first.spec, published)
    sha256 = {str(file): sha256_of(file) for file in files_in(place)}
    comparisons = tuple(
        compare(
            flat(each.vectors),
            flat(expected.vectors(len(published.sequences))),
            precision,
            expected.tolerance,
        )
        for precision, each in found.items()
    )
    return Installation(
        model=model.text,
        weights=source.text if source != model else None,
        fingerprint=first.fingerprint,
        device=device_name(device),
        date=datetime.now(UTC),
        passed=all(each.passed for each in comparisons),
        published=expected.name,
        repository=expected.repository,
        revision=expected.revision,
        sha256=sha256,
        published_sha256=expected.sha256,
        other_files=other_files(sha256, expected),
        comparisons=comparisons,
        versions=versions(),
    )


def check_trained(source: ModelSource) -> None:
    """Raise UserError if weights are random, or those of an adapter."""
    if source.is_random:
        raise UserError(
            f"{source.text}: random weights, for which no numbers are published. Give the trained "
            f"ones, --model {source.name} or their folder, or omit --published."
        )
    if source.is_path and is_adapter(Path(source.text)):
        raise UserError(
            f"{source.text}: an adapter changes the weights, and no numbers are published for the "
            f"result. Compare its base: --model {source.base().text} --published"
        )


def of_model(spec: ModelSpec, published: Published) -> PublishedModel:
    """Return what is published of a model.

    Raises:
        UserError: nothing is.
    """
    found = published.of(spec)
    if found is None:
        raise UserError(
            f"{spec.name}: no numbers of the authors' code are published for {describe(spec)}, "
            f"only for {', '.join(published.names)}. Omit --published to compare half precision "
            "with FP32."
        )
    return found


def chosen_precisions(choice: HalfChoice, device: str) -> Sequence[Rung]:
    """Return FP32 and, unless it is disabled, the half precision asked for."""
    return [Rung.FP32, choose_precision(choice, device)] if should_use_fp16() else [Rung.FP32]


def embed(
    source: ModelSource, place: Path, precision: Rung, device: str, published: Published
) -> Embedded:
    """Load a model, and embed the published proteins in one pack, as in a job.

    Raises:
        UserError: the weights cannot be read, or have another tokenizer.
        torch.OutOfMemoryError: the model does not fit the device.
    """
    sequences = published.sequences
    log.info("Embedding %d proteins with %s in %s.", len(sequences), source.text, precision)
    loaded = load_model(source, device=device, dtype=DTYPES[precision], place=place)
    check_tokens(loaded, published)
    form = OutputForm(include=VECTORS, max_residues=loaded.spec.family.max_residues)
    records = [Record(row, f"protein {row}", text) for row, text in enumerate(sequences)]
    embeddings = Engine(loaded).embed(records, form).embeddings
    vectors = np.full((len(records), len(VECTORS), loaded.spec.dim), np.nan, np.float32)
    for position, name in enumerate(VECTORS):
        vectors[embeddings.rows, position] = embeddings.pooled[name]
    return Embedded(loaded.spec, loaded.fingerprint, vectors)


def check_tokens(loaded: LoadedModel, published: Published) -> None:
    """Raise UserError if the tokenizer gives other tokens than the authors' did."""
    if tuple(loaded.tokenize(published.sequences).ids) != sum(published.tokens, ()):
        raise UserError(
            f"{loaded.source.text}: its tokenizer gives other tokens for the published proteins "
            "than the authors' does. Use the tokenizer's files that were published with these "
            "weights."
        )


def files_in(place: Path) -> Sequence[Path]:
    """Return the files of weights, a folder's or the one that the place is."""
    return list(weight_files(place)) if place.is_dir() else [place]


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def flat(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``[N, 2, D]`` as ``[2N, D]``."""
    return vectors.reshape(-1, vectors.shape[-1])
