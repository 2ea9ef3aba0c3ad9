"""The table of known models, and the shapes that configurations describe.

Sizes are those of the published checkpoints (fair-esm 2.0.0, ``esm.pretrained``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.alphabet import DNA, PROTEIN, SPECIAL_TOKENS, Alphabet
from common.errors import UserError
from common.model_config import (
    Config,
    check_settings,
    is_dnabert_s,
    layer_norm_eps,
    read_config,
    size,
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """The properties that models of one kind share, whatever their size."""

    name: str
    alphabet: Alphabet
    hub: str  # repository on the Hugging Face hub; {} is the model's name
    max_residues: int  # letters that are embedded in one piece, by default
    windows: bool  # whether longer records are embedded in windows, by default
    letters_per_token: int  # approximate
    block_weights: int  # weights of one block, in units of dim²
    pools_special_tokens: bool  # whether the mean includes the first and the last token
    pooling: str  # the same in words
    layer_norm_eps: float  # of the published models


ESM2 = Family(
    name="ESM-2",
    alphabet=PROTEIN,
    hub="facebook/{}",
    # Trained on crops of 1024 tokens, <cls> and <eos> among them.
    max_residues=1022,
    windows=False,
    letters_per_token=1,
    block_weights=12,
    pools_special_tokens=False,
    pooling="mean over residues, without <cls> and <eos>",
    layer_norm_eps=1e-5,
)

DNABERT_S = Family(
    name="DNABERT-S",
    alphabet=DNA,
    hub="zhihan1996/DNABERT-S",
    # Its authors' sequences have up to 10,000 bases (Zhou et al. 2024).
    max_residues=10_000,
    windows=True,
    letters_per_token=5,
    block_weights=16,
    pools_special_tokens=True,
    pooling="mean over all tokens, [CLS] and [SEP] among them",
    layer_norm_eps=1e-12,
)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The shape of a model, which is known without its weights."""

    name: str
    layers: int
    dim: int
    heads: int
    family: Family = ESM2
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


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(name="esm2_t6_8M_UR50D", layers=6, dim=320, heads=20),
        ModelSpec(name="esm2_t12_35M_UR50D", layers=12, dim=480, heads=20),
        ModelSpec(name="esm2_t30_150M_UR50D", layers=30, dim=640, heads=20),
        ModelSpec(name="esm2_t33_650M_UR50D", layers=33, dim=1280, heads=20),
        ModelSpec(name="esm2_t36_3B_UR50D", layers=36, dim=2560, heads=40),
        ModelSpec(name="esm2_t48_15B_UR50D", layers=48, dim=5120, heads=40),
        ModelSpec(name="dnabert_s", layers=12, dim=768, heads=12, family=DNABERT_S),
    )
}


#: Names in the table by every spelling of them, in lower case: the name, its repository on the
#: hub, and the repository's last part.
NAMES = {
    spelling.lower(): name
    for name, spec in MODELS.items()
    for hub in [spec.family.hub.format(name)]
    for spelling in (hub.rpartition("/")[2], hub, name)
}


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
        UserError: the model is neither ESM-2 nor DNABERT-S, a setting is not implemented, or the
            file is not valid JSON.
    """
    return spec_of(read_config(path), path, path.parent.name)


def spec_of(config: Config, path: Path | str, name: str) -> ModelSpec:
    """Return the shape that a Hugging Face configuration describes.

    Args:
        path: the configuration's place, for errors.
        name: the model's name.

    Raises:
        UserError: the model is neither ESM-2 nor DNABERT-S, or a setting is not implemented.
    """
    check_settings(config, path)
    family = DNABERT_S if is_dnabert_s(config) else ESM2
    eps = layer_norm_eps(config, path)
    spec = ModelSpec(
        name=name,
        layers=size(config, "num_hidden_layers", path),
        dim=size(config, "hidden_size", path),
        heads=size(config, "num_attention_heads", path),
        layer_norm_eps=None if eps == family.layer_norm_eps else eps,
        family=family,
    )
    if spec.dim % spec.heads or config.get("head_dim") not in (None, spec.dim // spec.heads):
        raise UserError(
            f"{path}: heads of another width than hidden_size / num_attention_heads, "
            f"{spec.dim} / {spec.heads}, are not supported."
        )
    return spec
