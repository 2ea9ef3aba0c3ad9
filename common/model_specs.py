"""The table of known models, and the shapes that configurations describe.

Sizes are those of the published checkpoints (fair-esm 2.0.0, ``esm.pretrained``).
"""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.alphabet import DNA, PROTEIN, SPECIAL_TOKENS, Alphabet
from common.errors import UserError
from common.model_config import (
    Config,
    check_settings,
    layer_norm_eps,
    read_config,
    size,
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """The properties that models of one kind share, whatever their size."""

    name: str
    alphabet: Alphabet
    max_residues: int  # letters that are embedded in one piece, by default
    windows: bool  # whether longer records are embedded in windows, by default
    letters_per_token: int  # approximate
    block_weights: int  # weights of one block, in units of dim²
    pools_special_tokens: bool  # whether the mean includes the first and the last token
    pooling: str  # the same in words
    layer_norm_eps: float  # of the published models
    alibi: bool = False  # whether attention has ALiBi (Press et al. 2022)
    longest: int | None = None  # letters of a piece that the model has positions for; None: any


ESM2 = Family(
    name="ESM-2",
    alphabet=PROTEIN,
    # Trained on crops of 1024 tokens, <cls> and <eos> among them.
    max_residues=1022,
    windows=False,
    letters_per_token=1,
    block_weights=12,
    pools_special_tokens=False,
    pooling="mean over residues, without <cls> and <eos>",
    layer_norm_eps=1e-5,
)

#: Positions are learned, for 1024 tokens (Rives et al. 2021, Meier et al. 2021).
ESM1 = replace(ESM2, name="ESM-1", longest=1022)

#: Trained on up to 2048 tokens, <cls> and <eos> among them.
ESMC = replace(ESM2, name="ESM C", max_residues=2046)

DNABERT_S = Family(
    name="DNABERT-S",
    alphabet=DNA,
    # Its authors' sequences have up to 10,000 bases (Zhou et al. 2024).
    max_residues=10_000,
    windows=True,
    letters_per_token=5,
    block_weights=16,
    pools_special_tokens=True,
    pooling="mean over all tokens, [CLS] and [SEP] among them",
    layer_norm_eps=1e-12,
    alibi=True,
)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The shape of a model, which is known without its weights."""

    name: str
    layers: int
    dim: int
    heads: int
    family: Family = ESM2
    hub: str = field(default="", compare=False)  # repository on the Hugging Face hub
    embed_norm: bool = False  # whether ESM-1 has a LayerNorm before its blocks
    layer_norm_eps: float | None = None  # None: the family's

    @property
    def parameters(self) -> int:
        """Number of weights in the blocks, where nearly all of the time is spent."""
        return self.family.block_weights * self.layers * self.dim**2

    @property
    def eps(self) -> float:
        """What LayerNorm adds to the variance."""
        given = self.layer_norm_eps
        return self.family.layer_norm_eps if given is None else given

    def tokens(self, letters: int) -> int:
        """Return the tokens of a record: exact for proteins, estimated for DNA."""
        return -(-letters // self.family.letters_per_token) + SPECIAL_TOKENS


def esm2(name: str, layers: int, dim: int, heads: int) -> ModelSpec:
    return ModelSpec(name=name, layers=layers, dim=dim, heads=heads, hub=f"facebook/{name}")


def esm1(name: str, *, embed_norm: bool) -> ModelSpec:
    return ModelSpec(
        name=name,
        layers=33,
        dim=1280,
        heads=20,
        family=ESM1,
        hub=f"facebook/{name}",
        embed_norm=embed_norm,
    )


def esmc(size: str, layers: int, dim: int, heads: int) -> ModelSpec:
    return ModelSpec(
        name=f"esmc_{size.lower()}",
        layers=layers,
        dim=dim,
        heads=heads,
        family=ESMC,
        hub=f"biohub/ESMC-{size}",
    )


def dnabert(name: str, hub: str) -> ModelSpec:
    return ModelSpec(name=name, layers=12, dim=768, heads=12, family=DNABERT_S, hub=hub)


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        esm2("esm2_t6_8M_UR50D", 6, 320, 20),
        esm2("esm2_t12_35M_UR50D", 12, 480, 20),
        esm2("esm2_t30_150M_UR50D", 30, 640, 20),
        esm2("esm2_t33_650M_UR50D", 33, 1280, 20),
        esm2("esm2_t36_3B_UR50D", 36, 2560, 40),
        esm2("esm2_t48_15B_UR50D", 48, 5120, 40),
        esmc("300M", 30, 960, 15),
        esmc("600M", 36, 1152, 18),
        esmc("6B", 80, 2560, 40),
        esm1("esm1b_t33_650M_UR50S", embed_norm=True),
        *(esm1(f"esm1v_t33_650M_UR90S_{n}", embed_norm=False) for n in range(1, 6)),
        dnabert("dnabert_s", "zhihan1996/DNABERT-S"),
        dnabert("dnabert_2", "zhihan1996/DNABERT-2-117M"),
    )
}


#: Names in the table by every spelling of them, in lower case: the name, its repository on the
#: hub, and the repository's last part.
NAMES = {
    spelling.lower(): name
    for name, spec in MODELS.items()
    for spelling in (spec.hub.rpartition("/")[2], spec.hub, name)
}


#: Names in the table by those of published files that are called otherwise, without their suffix.
FILE_NAMES = {"esmc_300m_2024_12_v0": "esmc_300m", "esmc_600m_2024_12_v0": "esmc_600m"}


def resolve_layers(layers: Sequence[int], count: int) -> list[int]:
    """Return layers as numbers from 0 to ``count``; -1 means the last one, and so on.

    Raises:
        UserError: a model of ``count`` layers does not have this layer.
    """
    resolved = [layer + count + 1 if layer < 0 else layer for layer in layers]
    for asked, layer in zip(layers, resolved, strict=True):
        if not 0 <= layer <= count:
            raise UserError(
                f"Layer {asked}: this model has layers 0 to {count}, or -1 to -{count + 1}."
            )
    return resolved


def read_hugging_face_config(path: Path) -> ModelSpec:
    """Read the shape of a model from a Hugging Face ``config.json``.

    Raises:
        UserError: the model is of no known family, a setting is not implemented, or the file is
            not valid JSON.
    """
    return spec_of(read_config(path), path, path.parent.name)


#: Families by the names that ``check_settings`` gives them.
FAMILIES = {family.name: family for family in (ESM2, ESM1, ESMC, DNABERT_S)}


def spec_of(config: Config, path: Path | str, name: str) -> ModelSpec:
    """Return the shape that a Hugging Face configuration describes.

    Args:
        path: the configuration's place, for errors.
        name: the model's name.

    Raises:
        UserError: the model is of no known family, or a setting is not implemented.
    """
    family = FAMILIES[check_settings(config, path)]
    eps = layer_norm_eps(config, path)
    spec = ModelSpec(
        name=name,
        layers=size(config, "num_hidden_layers", path),
        dim=size(config, "hidden_size", path),
        heads=size(config, "num_attention_heads", path),
        layer_norm_eps=None if eps == family.layer_norm_eps else eps,
        family=family,
        embed_norm=family is ESM1 and bool(config.get("emb_layer_norm_before")),
    )
    if spec.dim % spec.heads or config.get("head_dim") not in (None, spec.dim // spec.heads):
        raise UserError(
            f"{path}: heads of another width than hidden_size / num_attention_heads, "
            f"{spec.dim} / {spec.heads}, are not supported."
        )
    if family is ESMC and config.get("intermediate_size") not in (None, swiglu_width(spec.dim)):
        raise UserError(
            f"{path}: intermediate_size is {reprlib.repr(config['intermediate_size'])}, but ESM C "
            f"of width {spec.dim} has {swiglu_width(spec.dim)}."
        )
    return spec


def swiglu_width(dim: int) -> int:
    """Return the width of ESM C's hidden layer: 8/3 of the model's, in whole steps of 256."""
    return -(-8 * dim // (3 * 256)) * 256
