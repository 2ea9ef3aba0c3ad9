"""Embeddings in this process: no Redis, no queue, no store.

``virnucpro_fleet.Embedder`` and ``virnucpro_fleet.embed`` for users.
"""

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import torch
from pydantic import ValidationError

from common.class_head import checked_include, no_head
from common.embeddings.arrays import Array, Embeddings, not_included
from common.embeddings.table import EmbeddingTable
from common.errors import UserError
from common.job.output_form import (
    CLASS_LOGITS,
    PAIR_SCORES,
    RESIDUE_SCORES,
    Gaps,
    Include,
    Long,
    OutputForm,
    as_tuple,
)
from common.job.records import Record, Sequences
from common.memory import memory_errors_explained
from common.rungs import PrecisionChoice, Rung, ladder, model_precision
from workers.engine.attributes import model_attributes
from workers.engine.device import device_errors_explained, find_device
from workers.engine.engine import DTYPES, Engine
from workers.engine.finiteness import describe_instability
from workers.engine.sequences import check_long, checked, warn_of_changes
from workers.models.loading import LoadedModel, load_model


class EmbeddedSequences(EmbeddingTable):
    """The embeddings of some sequences, in memory."""

    def __init__(self, embeddings: Embeddings, attributes: Mapping[str, Any]) -> None:
        super().__init__(attributes)
        self.embeddings = embeddings

    def __repr__(self) -> str:
        return f"EmbeddedSequences({len(self):,} sequences, model {self.model})"

    def _column(self, name: str) -> Any:
        if name not in self.embeddings.columns:
            raise not_included(name)
        return self.embeddings.columns[name]

    def _residues_at(self, position: int, name: str) -> Array:
        return self.embeddings.residues_of(position, name)

    def _pairs_at(self, position: int, name: str) -> Array:
        return self.embeddings.pairs_of(position, name)


class Embedder:
    """A model loaded in this process, ready to embed sequences.

        with Embedder("esm2_t33_650M_UR50D") as embedder:
            result = embedder.embed({"P1": "MKTAYIAKQR"})

    Safe to use from several threads, which take turns.
    """

    def __init__(
        self, model: str | Path, *, device: str = "auto", precision: PrecisionChoice = "auto"
    ) -> None:
        """Load a model.

        Args:
            model: a name such as ``esm2_t33_650M_UR50D``, its repository on the Hugging Face hub,
                either with ``@REVISION``, a folder with safetensors, a fair-esm ``.pt`` file,
                either also as ``s3://bucket/key``, or ``random:NAME`` for weights without meaning.
            device: ``cpu``, ``cuda``, ``cuda:N`` for one of several GPUs, or ``auto``: the first
                GPU, or the CPU of a machine without one.
            precision: ``auto`` is FP16 on a GPU and FP32 on a CPU.

        Raises:
            UserError: the weights cannot be found or read, a validation found them unfit for the
                precision, there is no such device, or it has too little memory.
        """
        check_choice("precision", precision, PrecisionChoice)
        self._device = find_device(device)
        rung = model_precision(precision, on_gpu=self._device.type == "cuda")
        with device_errors_explained(self._device), memory_errors_explained():
            loaded = load_model(model, device=self._device, dtype=DTYPES[rung])
            if rung is not Rung.FP32:
                # Imported here: it needs a store, which FP32 does not.
                from workers.validation.record import refuse_unfit

                refuse_unfit(loaded.fingerprint, rung, self._device)
            self._engine: Engine | None = Engine(loaded)
            self._engine.warm_up()
        self.spec = loaded.spec

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory; the embedder cannot be used afterwards."""
        self._engine = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def embed(
        self,
        sequences: Sequences,
        include: Include | Sequence[Include] = "mean",
        layers: int | Sequence[int] = -1,
        *,
        gaps: Gaps = "keep",
        long: Long | None = None,
        max_residues: int | None = None,
    ) -> EmbeddedSequences:
        """Embed sequences.

        Rows that are not finite in the model's precision are computed again at the next rungs. Rows
        that no rung can embed are NaN, with a warning. Gaps that are kept, RNA read as DNA, DNA
        for a model of proteins, and truncation that was not asked for are warnings too.

        Args:
            sequences: sequences, ``{id: sequence}``, pairs of id and sequence, or Biopython's
                records, in upper or lower case.
            include: ``mean``, ``max`` and ``std`` (of each dimension), ``bos`` (the vector at the
                first token), ``per_residue``; of ESM-2 also ``contacts``, ``logits``, ``entropy``,
                ``pseudo_perplexity_unmasked``, and ``pseudo_perplexity``, which takes a pass for
                each residue; of a model with a classification head also ``class_logits``.
            layers: layers from 0, or negative ones counted from the last, which is -1.
            gaps: ``keep`` the gaps (- and .) of aligned sequences, for which proteins' models have
                tokens, ``strip`` them, or ``error``.
            long: how to embed longer sequences than ``max_residues``: ``truncate`` (the default of
                proteins), ``window`` (overlapping windows, the default of DNA) or ``error``.
            max_residues: 1022 for ESM-2 and 10,000 for DNABERT-S, unless given.

        Raises:
            InputError: a sequence is empty, too long, or has a letter that is not in the alphabet;
                its ``record`` is the sequence's position, from 1.
            UserError: the model has no such layer, options contradict each other, or the device
                fails or has too little memory.
        """
        engine = self._engine
        if engine is None:
            raise UserError("This embedder is closed: create another one.")
        family = self.spec.family
        if long is not None:
            check_choice("long", long, Long)
        limit = family.max_residues if max_residues is None else max_residues
        default: Long = "window" if family.windows else "truncate"
        form = form_of(include, layers, long or default, limit, engine.loaded)
        check_choice("gaps", gaps, Gaps)
        records, found = checked(sequences, family.alphabet, gaps)
        warn_of_changes(found, len(records))
        check_long(records, form, long, family.alphabet)
        with device_errors_explained(self._device), memory_errors_explained():
            embeddings = climb_ladder(engine, records, form)
        # An id of a program may have spaces, unlike one that is read from a header.
        return EmbeddedSequences(
            replace(embeddings, ids=embeddings.headers), model_attributes(engine.loaded, form)
        )


def climb_ladder(engine: Engine, records: list[Record], form: OutputForm) -> Embeddings:
    """Embed records, those that are not finite at the next rungs; NaN, with a warning, at none."""
    parts: list[Embeddings] = []
    left = records
    for rung in ladder(engine.precision):
        if not left:
            break
        outcome = engine.embed(left, form, rung=rung)
        parts.append(outcome.embeddings)
        unstable = {row.row for row in outcome.unstable}
        left = [record for record in left if record.row in unstable]
    if left:
        text = describe_instability("these sequences", outcome.unstable, None)
        warnings.warn(f"{text} Their vectors are NaN.", RuntimeWarning, stacklevel=3)
    return Embeddings.overlay(parts, records, form, engine.loaded.spec.dim)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise UserError unless an argument has one of the values of a ``Literal``."""
    if value not in get_args(choices):
        known = " or ".join(map(repr, get_args(choices)))
        raise UserError(f"{name}={value!r}: give {known}.")


def form_of(
    include: Include | Sequence[Include],
    layers: int | Sequence[int],
    long: Long,
    max_residues: int,
    loaded: LoadedModel,
) -> OutputForm:
    """Return the output form of the options.

    Raises:
        UserError: an option is invalid, residues of windows are asked for, or a head that the model
            does not have.
    """
    kept, classes = as_tuple(include), None
    if set(CLASS_LOGITS) & set(kept):
        head = loaded.class_head
        if head is None:
            raise no_head(loaded.source)
        kept, classes = checked_include(kept, head, loaded.source), len(head.labels)
    if long == "window" and {"per_residue", *RESIDUE_SCORES, *PAIR_SCORES} & set(kept):
        raise UserError(
            "Residues of windows, which overlap, have no vectors or scores of their own: give "
            "long='truncate' or long='error'."
        )
    if not isinstance(max_residues, int):
        raise UserError(f"max_residues={max_residues!r}: give a whole number.")
    try:
        return OutputForm(
            include=kept,
            classes=classes,
            layers=as_tuple(layers),
            residue_dtype="float32",
            max_residues=max_residues,
            overlap=max_residues // 10 if long == "window" else None,
        )
    except ValidationError as error:
        raise UserError.of_options(error) from error


#: The embedder of the last ``embed`` call by its model, device and precision, under a lock.
_last: dict[tuple[str, str, PrecisionChoice], Embedder] = {}
_lock = threading.Lock()


def embed(
    sequences: Sequences,
    model: str | Path,
    *,
    layers: int | Sequence[int] = -1,
    gaps: Gaps = "keep",
    long: Long | None = None,
    max_residues: int | None = None,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
) -> Array:
    """Return the mean vectors of sequences, float32 ``[N, D]``, or ``[N, K, D]`` for K > 1 layers.

    The model of the last call stays loaded. The arguments are those of ``Embedder`` and of
    ``Embedder.embed``.
    """
    key = (str(model), device, precision)
    with _lock:
        if key not in _last:
            _last.clear()  # before the next one takes memory
            _last[key] = Embedder(model, device=device, precision=precision)
        embedder = _last[key]
    return embedder.embed(
        sequences, layers=layers, gaps=gaps, long=long, max_residues=max_residues
    ).mean
