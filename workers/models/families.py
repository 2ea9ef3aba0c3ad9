"""The code of each family of models: the place to add another one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.model_specs import DNABERT_S, ESM2, Family, ModelSpec
from workers.models.dnabert_s import checkpoint as dnabert_s_checkpoint
from workers.models.dnabert_s.fused import FusedDNABERTS
from workers.models.dnabert_s.model import DNABERTS
from workers.models.dnabert_s.tokenizer import DNATokenizer
from workers.models.encoder import Encoder
from workers.models.esm2 import checkpoint as esm2_checkpoint
from workers.models.esm2 import model as esm2_model
from workers.models.esm2.cpu import CpuESM2
from workers.models.esm2.fused import FusedESM2
from workers.models.esm2.tokenizer import ESM2_TOKENIZER, tokenizer_in
from workers.models.tokens import Tokenizer
from workers.models.weight_files import Names, State


@dataclass(frozen=True, kw_only=True)
class FamilyCode:
    """The classes and functions that build and load the models of one family."""

    model: type[Encoder]
    #: Builds the fused view of a half-precision model.
    fused: Callable[[Any], Encoder]
    #: Builds the view for a CPU of a model in FP32 or BF16, if there is a fast one.
    on_cpu: Callable[[Any], Encoder] | None = None
    #: Renames the tensors of a Hugging Face checkpoint to this project's names; the folder is for
    #: error messages.
    from_hugging_face: Callable[[State, ModelSpec, Path], State]
    #: The names of a Hugging Face checkpoint's tensors.
    names: Names
    #: Returns the tokenizer in a checkpoint's folder.
    tokenizer_in: Callable[[Path], Tokenizer]
    #: Returns the tokenizer for random weights.
    own_tokenizer: Callable[[], Tokenizer]


CODE_OF: dict[Family, FamilyCode] = {
    ESM2: FamilyCode(
        model=esm2_model.ESM2,
        fused=FusedESM2,
        on_cpu=CpuESM2,
        from_hugging_face=esm2_checkpoint.from_hugging_face,
        names=esm2_checkpoint.HUGGING_FACE,
        tokenizer_in=tokenizer_in,
        own_tokenizer=lambda: ESM2_TOKENIZER,
    ),
    DNABERT_S: FamilyCode(
        model=DNABERTS,
        fused=FusedDNABERTS,
        from_hugging_face=dnabert_s_checkpoint.from_hugging_face,
        names=dnabert_s_checkpoint.NAMES,
        tokenizer_in=lambda folder: DNATokenizer.from_file(folder / "tokenizer.json"),
        own_tokenizer=DNATokenizer.own,
    ),
}


def model_class(spec: ModelSpec) -> type[Encoder]:
    """Return the class of models of this shape."""
    return CODE_OF[spec.family].model
