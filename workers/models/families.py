"""The code of each family of models: the place to add another one (``docs/models.md``)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.model_specs import DNABERT_S, ESM1, ESM2, ESMC, Family, ModelSpec
from workers.models.attention.choice import Kernel
from workers.models.dnabert_s import checkpoint as dnabert_s_checkpoint
from workers.models.dnabert_s.fused import FusedDNABERTS
from workers.models.dnabert_s.model import DNABERTS
from workers.models.dnabert_s.tokenizer import DNATokenizer
from workers.models.encoder import Encoder
from workers.models.esm1 import checkpoint as esm1_checkpoint
from workers.models.esm1 import model as esm1_model
from workers.models.esm1.fused import FusedESM1
from workers.models.esm2 import checkpoint as esm2_checkpoint
from workers.models.esm2 import model as esm2_model
from workers.models.esm2.cpu import CpuESM2
from workers.models.esm2.fused import FusedESM2
from workers.models.esm2.tokenizer import ESM2_TOKENIZER, tokenizer_in
from workers.models.esmc import checkpoint as esmc_checkpoint
from workers.models.esmc import model as esmc_model
from workers.models.esmc import tokenizer as esmc_tokenizer
from workers.models.esmc.fused import FusedESMC
from workers.models.tokens import Tokenizer
from workers.models.weight_files import Names, State


@dataclass(frozen=True, kw_only=True)
class FamilyCode:
    """The classes and functions that build and load the models of one family."""

    model: type[Encoder]
    #: Builds the fused view of a half-precision model, with a kernel of attention.
    fused: Callable[[Any, Kernel], Encoder]
    #: Builds the view for a CPU of a model in FP32 or BF16, if there is a fast one.
    on_cpu: Callable[[Any], Encoder] | None = None
    #: Renames a checkpoint's tensors to this project's names; the path is for error messages.
    from_published: Callable[[State, ModelSpec, Path], State]
    #: Returns the names that the format of a checkpoint's tensors has.
    names_of: Callable[[State], Names]
    #: Returns the tokenizer in a checkpoint's folder.
    tokenizer_in: Callable[[Path], Tokenizer]
    #: Returns the tokenizer for weights without a folder: random ones, or a single file.
    own_tokenizer: Callable[[], Tokenizer]


CODE_OF: dict[Family, FamilyCode] = {
    ESM2: FamilyCode(
        model=esm2_model.ESM2,
        fused=FusedESM2,
        on_cpu=CpuESM2,
        from_published=esm2_checkpoint.from_published,
        names_of=esm2_checkpoint.names_of,
        tokenizer_in=tokenizer_in,
        own_tokenizer=lambda: ESM2_TOKENIZER,
    ),
    ESM1: FamilyCode(
        model=esm1_model.ESM1,
        fused=FusedESM1,
        from_published=esm1_checkpoint.from_published,
        names_of=esm1_checkpoint.names_of,
        tokenizer_in=tokenizer_in,
        own_tokenizer=lambda: ESM2_TOKENIZER,
    ),
    ESMC: FamilyCode(
        model=esmc_model.ESMC,
        fused=FusedESMC,
        from_published=esmc_checkpoint.from_published,
        names_of=esmc_checkpoint.names_of,
        tokenizer_in=esmc_tokenizer.tokenizer_in,
        own_tokenizer=lambda: ESM2_TOKENIZER,
    ),
    DNABERT_S: FamilyCode(
        model=DNABERTS,
        fused=FusedDNABERTS,
        from_published=dnabert_s_checkpoint.from_published,
        names_of=dnabert_s_checkpoint.names_of,
        tokenizer_in=lambda folder: DNATokenizer.from_file(folder / "tokenizer.json"),
        own_tokenizer=DNATokenizer.own,
    ),
}


def model_class(spec: ModelSpec) -> type[Encoder]:
    """Return the class of models of this shape."""
    return CODE_OF[spec.family].model
