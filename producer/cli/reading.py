"""The options of what is read and embedded, which ``submit`` and ``check`` share."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Unpack

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from common.errors import UserError
from common.job.output_form import (
    Empty,
    Gaps,
    Include,
    Invalid,
    Long,
    Molecule,
    ResidueDtype,
    Unknown,
)
from common.model_source import with_revision
from common.rungs import PrecisionChoice
from producer.cli.options import Several
from producer.input.sources import AnySource
from producer.submission.records import as_sources
from producer.submission.request import DEFAULT_MODEL, Options, Request, make_request

#: The inputs of a command.
Inputs = Annotated[str, Parameter(name="INPUT", allow_leading_hyphen=True)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is read, and what of it is embedded.

    Parameters
    ----------
    list_
        A file with the name of an input in each line.
    sequence
        A sequence itself; the first has the id seq_1. May be given several times.
    model
        Name such as esm2_t33_650M_UR50D, a folder with safetensors, a fair-esm .pt file, either
        also as s3://bucket/key, or random:NAME for random weights, to test the fleet. Several
        (--model A --model B) are one job, whose file has a group for each.
    revision
        Branch, tag or commit of the model on the Hugging Face hub, also as NAME@REVISION. Only
        workers that were started with the same one take the job.
    include
        Vectors to keep: mean, per_residue, bos, max, std (several: --include mean bos, or
        mean,bos), and of ESM-2 the scores logits, entropy, pseudo_perplexity_unmasked, and
        pseudo_perplexity, which takes a pass of the model for each residue, and contacts, which
        have a number for each pair of residues; of a fine-tuned model with a classification head,
        class_logits.
    layers
        Representations to keep; -1 is the last (several: --layers -1 6, or -1,6).
    precision
        auto is FP16 on GPUs and FP32 on CPUs.
    residue_dtype
        Number type of per-residue vectors and of contacts; default: float16 for the last layer,
        which is normalised, float32 for others. Pooled vectors are always float32.
    molecule
        What the input consists of: protein, dna or rna. auto refuses one whose records are nearly
        all not what the model is for, by the shares of their letters.
    invalid
        What to do with a record that has no sequence, is shorter than --min-length, or has a letter
        outside the alphabet: refuse the input, skip the record, or embed the letter as X (of DNA:
        N) and skip the others.
    unknown
        The same for letters outside the alphabet alone; default: as --invalid.
    gaps
        What to do with the gaps (- and .) of aligned sequences: keep them, as proteins' models have
        tokens for them, strip them, or refuse the input. DNA's model has no letter for gaps.
    empty
        The same as --invalid for records without a sequence alone; default: as --invalid.
    min_length
        Fewest letters of a record that is embedded.
    id_column
        Column of a CSV, TSV or Parquet file with the ids; default: id.
    sequence_column
        Column of such a file with the sequences; default: sequence.
    long
        What to do with a record longer than --max-residues: truncate it (default for proteins),
        embed it in overlapping windows, pooled by their tokens (default for DNA), or error.
    max_residues
        Residues or bases that are embedded in one piece; default: 1022 for ESM-2, which was
        trained on that many, 10000 for DNABERT-S.
    overlap
        Fewest letters that neighbouring windows share; default: a tenth of a window.
    dedup
        Compute identical sequences once (on) or each by itself (off); the output is the same.
    batch_tokens
        Tokens in a batch; default: about a second's work of the workers, less for small inputs.
        Without a worker: of a GPU, or of a CPU with --precision fp32.
    """

    list_: Annotated[tuple[str, ...], Parameter(name="--from", negative="")] = ()
    sequence: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    model: Annotated[tuple[str, ...], Parameter(negative="", show_default=" ".join)] = (
        DEFAULT_MODEL,
    )
    revision: str | None = None
    include: Annotated[tuple[Include, ...], Several] = ("mean",)
    layers: Annotated[tuple[int, ...], Several] = (-1,)
    precision: PrecisionChoice = "auto"
    residue_dtype: ResidueDtype | None = None
    molecule: Molecule = "auto"
    invalid: Invalid = "error"
    unknown: Unknown | None = None
    gaps: Gaps = "keep"
    empty: Empty | None = None
    min_length: PositiveInt = 1
    id_column: str | None = None
    sequence_column: str | None = None
    long: Long | None = None
    max_residues: PositiveInt | None = None
    overlap: NonNegativeInt | None = None
    dedup: Literal["on", "off"] = "on"
    batch_tokens: PositiveInt | None = None

    def source(self, inputs: Iterable[str]) -> AbstractContextManager[AnySource]:
        """Return a context with the source of everything that is named; see ``as_sources``."""
        return as_sources(inputs, lists=self.list_, sequences=self.sequence)

    @property
    def models(self) -> list[str]:
        """The models, each with its revision.

        Raises:
            UserError: two are the same, or one revision is of several.
        """
        if self.revision is not None and len(self.model) > 1:
            raise UserError("--revision is of one model: of several, give each as NAME@REVISION.")
        if len({*self.model}) < len(self.model):
            raise UserError("--model: a model is given twice.")
        return [with_revision(model, self.revision) for model in self.model]

    @property
    def only_model(self) -> str:
        """The model, of a command that takes one.

        Raises:
            UserError: several are given.
        """
        if len(self.model) > 1:
            raise UserError("--model: this command takes one model. Give it once for each.")
        return self.models[0]

    def request(self, source: AnySource, model: str, **more: Unpack[Options]) -> Request:
        """Return the request for a source with these options, and more.

        Raises:
            UserError: options exclude each other, or the model does not support them.
        """
        options: Options = {
            "include": self.include,
            "layers": self.layers,
            "precision": self.precision,
            "residue_dtype": self.residue_dtype,
            "molecule": self.molecule,
            "invalid": self.invalid,
            "unknown": self.unknown,
            "gaps": self.gaps,
            "empty": self.empty,
            "min_length": self.min_length,
            "id_column": self.id_column,
            "sequence_column": self.sequence_column,
            "long": self.long,
            "max_residues": self.max_residues,
            "overlap": self.overlap,
            "dedup": self.dedup == "on",
            **more,
        }
        return make_request(source, model, **options)


#: The options if none is given.
USUAL = Reading()


#: Options of ``esm-extract``, and what does the same here.
OF_ESM_EXTRACT = {
    "--repr_layers": "--layers",
    "--truncation_seq_length": "--max-residues",
    "--toks_per_batch": "not needed: batches fit themselves to the GPU",
    "--nogpu": "--gpus none",
}


def check_options(inputs: Iterable[str], command: str) -> None:
    """Refuse an unknown option, which is among the inputs because of ``-``.

    Raises:
        UserError: there is one.
    """
    for name in inputs:
        if name.startswith("-") and name != "-" and not Path(name).exists():
            if name in OF_ESM_EXTRACT:
                raise UserError(
                    f"Unknown option: {name}. What esm-extract calls so is here "
                    f"{OF_ESM_EXTRACT[name]}."
                )
            raise UserError(
                f"Unknown option: {name}. producer {command} --help lists all; a file of this name "
                f"is ./{name}."
            )
