"""A user's request: an input, a model, an output form."""

import hashlib
import json
import re
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Unpack

from pydantic import (
    ConfigDict,
    NonNegativeInt,
    PositiveInt,
    SkipValidation,
    TypeAdapter,
    ValidationError,
    with_config,
)

from common.alphabet import PROTEIN, Alphabet
from common.class_head import checked_include, class_head_of
from common.errors import UserError
from common.job.output_form import (
    CLASS_LOGITS,
    PAIR_SCORES,
    SCORES,
    Empty,
    Gaps,
    Include,
    Invalid,
    Long,
    Molecule,
    OutputForm,
    ResidueDtype,
    Short,
    Unknown,
    as_tuple,
)
from common.ledger.progress import OnInstability
from common.model_source import ModelSource
from common.model_specs import DNABERT_S, ESM2, Family
from common.rungs import PrecisionChoice, Rung, first_rung
from common.wire.messages import Priority
from common.wire.queues import queue_name
from producer.input.columns import USUAL_COLUMNS, Columns
from producer.input.reader import Reader
from producer.input.sources import AnySource
from producer.submission.owner import owner_named

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:
    from typing_extensions import TypedDict  # the one that pydantic can check

DEFAULT_MODEL = "esm2_t33_650M_UR50D"


@with_config(ConfigDict(extra="forbid"))
class Options(TypedDict, total=False):
    """The options of a job, with the defaults of ``producer submit``."""

    #: Vectors to keep: mean, per_residue, bos, max, std, and scores. OutputForm checks these two.
    include: Annotated[Include | Sequence[Include], SkipValidation]
    layers: Annotated[int | Sequence[int], SkipValidation]  # to keep; -1 is the last
    precision: PrecisionChoice
    residue_dtype: ResidueDtype | None  # None: float16 for the last layer, else float32
    molecule: Molecule  # of the input; auto: the model's, unless nearly all records say otherwise
    invalid: Invalid  # what to do with empty and short records, and with unknown letters
    unknown: Unknown | None  # what to do with letters outside the alphabet; None: as invalid
    gaps: Gaps  # what to do with - and . between the letters
    empty: Empty | None  # what to do with records without a sequence; None: as invalid
    min_length: PositiveInt  # fewest letters of a record that is embedded
    id_column: str | None  # of tables; None: id
    sequence_column: str | None  # likewise; None: sequence
    long: Long | None  # what to do with long records; None: the default of the model's family
    max_residues: PositiveInt | None  # letters embedded in one piece; None: the family's default
    overlap: NonNegativeInt | None  # letters that windows share at least; None: a tenth
    dedup: bool  # compute identical sequences once; the output is the same
    reuse: bool  # take what earlier jobs in the store have computed
    on_instability: OnInstability  # what to do with an embedding that is not finite
    priority: Priority
    owner: str | None  # who submits; None: VIRNUCPRO_OWNER, or user@host
    new: bool  # create a new job even if the same input was submitted before


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that a user asks for with one submission."""

    source: AnySource
    model: ModelSource
    alphabet: Alphabet
    rung: Rung
    priority: Priority = Priority.NORMAL
    owner: str = ""
    on_instability: OnInstability
    form: OutputForm
    unknown: Unknown
    long: Long
    gaps: Gaps = "keep"
    empty: Empty = "error"
    min_length: int = 1
    short: Short = "error"
    molecule: Molecule = "auto"  # no part of the fingerprint: it changes no row
    columns: Columns = USUAL_COLUMNS  # of tables
    #: Whether identical sequences are computed once. The output is the same: it makes no other job.
    dedup: bool = True
    #: Whether rows of earlier jobs are taken over. They are equal, but for the last bits of numbers
    #: that were computed in other batches: it makes no other job.
    reuse: bool = False
    #: A random text that makes this request differ from equal ones; None: equal requests are one
    #: job.
    nonce: str | None = None

    def fingerprint(self) -> str:
        """Return a hash of the input's bytes and every option that changes the output."""
        options = {
            "input": self.source.fingerprint,
            "model": self.model.text,
            "alphabet": self.alphabet.name,
            "rung": self.rung,
            "form": self.form.model_dump(),
            "unknown": self.unknown,
            "long": self.long,
            # The defaults are left out: earlier versions did not have these options.
            **({} if self.gaps == "keep" else {"gaps": self.gaps}),
            **({} if self.empty == "error" else {"empty": self.empty}),
            **({} if self.min_length == 1 else {"min_length": [self.min_length, self.short]}),
            **({} if self.columns == USUAL_COLUMNS else {"columns": self.columns}),
            **({} if self.nonce is None else {"nonce": self.nonce}),
        }
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def make_request(
    source: AnySource, model: str | Path = DEFAULT_MODEL, **options: Unpack[Options]
) -> Request:
    """Return the request for embedding a source, with the defaults of the model's family.

    Raises:
        UserError: options exclude each other, or the model does not support them.
    """
    model_source = ModelSource.parse(model)
    model_source.files()  # refuses what no worker could load
    options = checked(options)
    molecule = options.get("molecule", "auto")
    family = family_of(model_source, molecule)
    if model_source.spec() is None and not model_source.is_fair_esm and molecule == "auto":
        molecule = "protein"  # what the model is for is not known: nothing is refused for it
    check_molecule(molecule, model_source, family)
    invalid = options.get("invalid", "error")
    left_out: Short = "error" if invalid == "error" else "skip"
    include, layers = as_tuple(options.get("include", "mean")), as_tuple(options.get("layers", -1))
    if family.letters_per_token > 1 and "per_residue" in include:
        raise UserError(
            f"include per_residue: {family.name} has tokens of several bases, not a vector for "
            "each base. Give mean or bos."
        )
    scores = [name for name in include if name in SCORES]
    if family is not ESM2 and scores:
        head_of = "contact" if scores[0] in PAIR_SCORES else "language-model"
        raise UserError(
            f"include {scores[0]}: {family.name} has no {head_of} head here. Give mean or bos."
        )
    classes = None
    if set(CLASS_LOGITS) & set(include):
        head = class_head_of(model_source)
        include, classes = checked_include(include, head, model_source), len(head.labels)
    long = options.get("long") or default_long(family)
    max_residues = options.get("max_residues") or family.max_residues
    if family.longest is not None and max_residues > family.longest:
        raise UserError(
            f"max_residues {max_residues}: {family.name} has positions for {family.longest} "
            f"residues. Give at most {family.longest}, or another model."
        )
    residue_dtype = options.get("residue_dtype")
    try:
        form = OutputForm(
            include=include,
            classes=classes,
            layers=layers,
            residue_dtype=residue_dtype or ("float16" if layers == (-1,) else "float32"),
            max_residues=max_residues,
            overlap=window_overlap(long, max_residues, options.get("overlap")),
        )
    except ValidationError as error:
        raise UserError.of_options(error) from error
    return Request(
        source=source,
        model=model_source,
        alphabet=family.alphabet,
        rung=first_rung(options.get("precision", "auto")),
        on_instability=options.get("on_instability", "retry"),
        form=form,
        unknown=options.get("unknown") or invalid,
        long=long,
        gaps=options.get("gaps", "keep"),
        empty=options.get("empty") or left_out,
        min_length=options.get("min_length", 1),
        short=left_out,
        molecule=molecule,
        columns=Columns(options.get("id_column"), options.get("sequence_column")),
        dedup=options.get("dedup", True),
        reuse=options.get("reuse", False),
        priority=options.get("priority", Priority.NORMAL),
        owner=owner_named(options.get("owner")),
        nonce=uuid.uuid4().hex if options.get("new", False) else None,
    )


def checked(options: Options) -> Options:
    """Return options with values of the right types.

    Raises:
        UserError: an option has a value that it cannot have, or is not known.
    """
    try:
        return TypeAdapter(Options).validate_python(options)
    except ValidationError as error:
        raise UserError.of_options(error) from error


def check_molecule(molecule: Molecule, model: ModelSource, family: Family) -> None:
    """Check that a model is for the molecule that the input is said to be.

    Raises:
        UserError: it is for another one.
    """
    of_protein = family.alphabet is PROTEIN
    if molecule == "auto" or (molecule == "protein") == of_protein:
        return
    letters = "amino acids" if of_protein else "bases"
    raise UserError(
        f"molecule {molecule}: {model.text} is a model for {'proteins' if of_protein else 'DNA'}. "
        f"Give another model; to have it read all letters as {letters}, set molecule to "
        f"{'protein' if of_protein else 'dna'}."
    )


def family_of(model: ModelSource, molecule: Molecule = "auto") -> Family:
    """Return the model's family; of a folder that only the workers see, that of the molecule."""
    spec = model.spec()
    if spec is not None:
        return spec.family
    of_dna = molecule in ("dna", "rna") and not model.is_fair_esm
    return DNABERT_S if of_dna else ESM2


def default_long(family: Family) -> Long:
    return "window" if family.windows else "truncate"


def window_overlap(long: Long, max_residues: int, overlap: int | None) -> int | None:
    """Return the windows' overlap in letters; None: long records are not cut into windows.

    Raises:
        UserError: there is an overlap, but no windows.
    """
    if long != "window":
        if overlap is not None:
            raise UserError("overlap applies to windows only: set long to window too.")
        return None
    return max_residues // 10 if overlap is None else overlap


def job_name(source: AnySource, fingerprint: str) -> str:
    """Return a readable name, safe in paths, keys and URLs; equal requests get equal names."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", source.stem)[:40].strip("-") or "job"
    return f"{stem}-{fingerprint[:12]}"


def queue_of_request(request: Request) -> str:
    return queue_name(request.model, request.rung, request.rung, request.priority)


def reader_of(request: Request) -> Reader:
    """Return the reader of a request's input."""
    return Reader(request.source, **checks_of(request))


def checks_of(request: Request) -> dict[str, Any]:
    """Return the options of the reader of a request's input."""
    return {
        "alphabet": request.alphabet,
        "unknown": request.unknown,
        "long": request.long,
        "max_residues": request.form.max_residues,
        "gaps": request.gaps,
        "empty": request.empty,
        "columns": request.columns,
        "min_length": request.min_length,
        "short": request.short,
        "molecule": request.molecule,
    }
