"""Embeddings in this process: no Redis, no queue, no store.

``virnucpro_fleet.Embedder`` and ``virnucpro_fleet.embed`` for users.
"""

import threading
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, get_args

import torch
from pydantic import ValidationError

from common.alphabet import Alphabet
from common.embeddings.arrays import Array, Embeddings, not_included
from common.embeddings.table import EmbeddingTable
from common.errors import InputError, UserError
from common.job.output_form import Include, Long, OutputForm
from common.job.records import Record, Sequences, with_ids
from common.rungs import PrecisionChoice, ladder, model_precision
from workers.engine.attributes import model_attributes
from workers.engine.engine import DTYPES, Engine
from workers.engine.finiteness import describe_instability
from workers.models.loading import load_model

Device = Literal["auto", "cpu", "cuda"]


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

    def _residues_at(self, position: int) -> Array:
        return self.embeddings.residues_of(position)


class Embedder:
    """A model loaded in this process, ready to embed sequences.

        with Embedder("esm2_t33_650M_UR50D") as embedder:
            result = embedder.embed({"P1": "MKTAYIAKQR"})

    Safe to use from several threads, which take turns.
    """

    def __init__(
        self, model: str, *, device: Device = "auto", precision: PrecisionChoice = "auto"
    ) -> None:
        """Load a model.

        Args:
            model: a name such as ``esm2_t33_650M_UR50D``, its repository on the Hugging Face hub, a
                folder with safetensors, a fair-esm ``.pt`` file, or ``random:NAME`` for weights
                without meaning.
            device: ``auto`` is the first GPU, or the CPU of a machine without one.
            precision: ``auto`` is FP16 on a GPU and FP32 on a CPU.

        Raises:
            UserError: the weights cannot be found or read, or there is no such device.
        """
        check_choice("device", device, Device)
        check_choice("precision", precision, PrecisionChoice)
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("device='cuda': PyTorch finds no GPU here. Use 'auto' or 'cpu'.")
        on_gpu = device != "cpu" and torch.cuda.is_available()
        rung = model_precision(precision, on_gpu=on_gpu)
        loaded = load_model(model, device="cuda" if on_gpu else "cpu", dtype=DTYPES[rung])
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
        include: Sequence[Include] = ("mean",),
        layers: Sequence[int] = (-1,),
        *,
        long: Long | None = None,
        max_residues: int | None = None,
    ) -> EmbeddedSequences:
        """Embed sequences.

        Rows that are not finite in the model's precision are computed again at the next rungs. Rows
        that no rung can embed are NaN, with a warning.

        Args:
            sequences: sequences, ``{id: sequence}``, or pairs of id and sequence, in either case.
            include: ``mean``, ``bos`` (the vector at the first token), ``per_residue``.
            layers: layers from 0, or negative ones counted from the last, which is -1.
            long: how to embed longer sequences than ``max_residues``: ``truncate`` (the default of
                proteins), ``window`` (overlapping windows, the default of DNA) or ``error``.
            max_residues: 1022 for ESM-2 and 10,000 for DNABERT-S, unless given.

        Raises:
            InputError: a sequence is empty, too long, or has a letter that is not in the alphabet;
                its ``record`` is the sequence's position, from 1.
            UserError: the model has no such layer, or options contradict each other.
        """
        engine = self._engine
        if engine is None:
            raise UserError("This embedder is closed: create another one.")
        family = self.spec.family
        if long is not None:
            check_choice("long", long, Long)
        long = long or ("window" if family.windows else "truncate")
        limit = family.max_residues if max_residues is None else max_residues
        form = form_of(include, layers, long, limit)
        records = [
            checked(row, id_, sequence, family.alphabet)
            for row, (id_, sequence) in enumerate(with_ids(sequences))
        ]
        if long == "error":
            refuse_long(records, limit, family.alphabet)
        embeddings = climb_ladder(engine, records, form)
        return EmbeddedSequences(embeddings, model_attributes(engine.loaded, form))


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
    include: Sequence[Include], layers: Sequence[int], long: Long, max_residues: int
) -> OutputForm:
    """Return the output form of the options.

    Raises:
        UserError: an option is invalid, or residues of windows are asked for.
    """
    if long == "window" and "per_residue" in include:
        raise UserError(
            "Residues of windows, which overlap, have no vectors of their own: give "
            "long='truncate' or long='error'."
        )
    try:
        return OutputForm(
            include=tuple(include),
            layers=tuple(layers),
            residue_dtype="float32",
            max_residues=max_residues,
            overlap=max_residues // 10 if long == "window" else None,
        )
    except ValidationError as error:
        raise UserError.of_options(error) from error


def checked(row: int, id_: str, sequence: str, alphabet: Alphabet) -> Record:
    """Return a record in upper case, without a final ``*``.

    Raises:
        InputError: it is empty, or has a letter that is not in the alphabet.
    """
    residues = sequence.encode().upper().decode().rstrip("*")  # bytes: ASCII alone
    if not residues:
        raise InputError(f"Sequence {row + 1} ({id_!r}) is empty.", record=row + 1)
    unknown = set(residues) - alphabet.letters
    if unknown:
        position = next(i for i, letter in enumerate(residues) if letter in unknown)
        raise InputError(
            f"Sequence {row + 1} ({id_!r}) has {sequence[position]!r} at position {position + 1}, "
            f"which is no {alphabet.letter} that the model knows. Write {alphabet.unknown} for an "
            f"unknown {alphabet.letter}.",
            record=row + 1,
        )
    return Record(row, id_, residues)


def refuse_long(records: list[Record], limit: int, alphabet: Alphabet) -> None:
    """Raise InputError for the first record of more than ``limit`` letters."""
    for row, id_, residues in records:
        if len(residues) > limit:
            raise InputError(
                f"Sequence {row + 1} ({id_!r}) has {len(residues):,} {alphabet.plural}, more than "
                f"the limit of {limit:,}: raise max_residues, or give long='truncate' or 'window'.",
                record=row + 1,
            )


#: The embedder of the last ``embed`` call by its model, device and precision, under a lock.
_last: dict[tuple[str, Device, PrecisionChoice], Embedder] = {}
_lock = threading.Lock()


def embed(
    sequences: Sequences,
    model: str,
    *,
    layers: Sequence[int] = (-1,),
    long: Long | None = None,
    max_residues: int | None = None,
    device: Device = "auto",
    precision: PrecisionChoice = "auto",
) -> Array:
    """Return the mean vectors of sequences, float32 ``[N, D]``, or ``[N, K, D]`` for K > 1 layers.

    The model of the last call stays loaded. The arguments are those of ``Embedder`` and of
    ``Embedder.embed``.
    """
    key = (model, device, precision)
    with _lock:
        if key not in _last:
            _last.clear()  # before the next one takes memory
            _last[key] = Embedder(model, device=device, precision=precision)
        embedder = _last[key]
    return embedder.embed(sequences, layers=layers, long=long, max_residues=max_residues).mean
