"""The models that the fleet knows, and how a ``--model`` value is read.

Sizes are those of the published checkpoints (fair-esm 2.0.0, ``esm.pretrained``).
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.alphabet import DNA, PROTEIN, SPECIAL_TOKENS, Alphabet
from common.errors import UserError

#: What tells ESM-2 from the older models of its family, whose vocabulary and file format are
#: the same: loaded as ESM-2 they would give numbers that mean nothing.
ESM2_CONFIG = {
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "token_dropout": True,
}

RANDOM_PREFIX = "random:"


@dataclass(frozen=True, kw_only=True)
class Family:
    """What models of one kind have in common, whatever their size."""

    name: str
    alphabet: Alphabet
    hub: str  # repository on the Hugging Face hub; {} is the model's name
    max_residues: int  # letters that are embedded in one piece, if the user does not say
    windows: bool  # whether longer records are embedded in windows, if the user does not say
    letters_per_token: int  # about
    block_weights: int  # in each block, in units of dim²
    pools_special_tokens: bool  # whether a mean is over the first and the last token too
    pooling: str  # the same in words


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
)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The shape of a model: all that can be known of it without its weights."""

    name: str
    layers: int
    dim: int
    heads: int
    family: Family = ESM2

    @property
    def parameters(self) -> int:
        """Weights in the blocks, which is where the time goes."""
        return self.family.block_weights * self.layers * self.dim**2

    def tokens(self, letters: int) -> int:
        """Tokens of a record: exact for proteins, about for DNA, whose tokens differ in length."""
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

#: Names in the table by their repositories on the hub.
HUB_NAMES = {spec.family.hub.format(name): name for name, spec in MODELS.items()}


@dataclass(frozen=True)
class ModelSource:
    """Where weights come from: ``NAME``, ``random:NAME``, a folder or a ``.pt`` file.

    ``text`` is the normal form: two texts are equal exactly if they mean the same weights.
    """

    text: str

    @classmethod
    def parse(cls, value: str) -> "ModelSource":
        """Read a ``--model`` value.

        Raises:
            UserError: a bare name that is not in the table.
        """
        bare = value.removeprefix(RANDOM_PREFIX)
        name = HUB_NAMES.get(bare, bare)
        if name in MODELS:
            return cls(RANDOM_PREFIX + name if value.startswith(RANDOM_PREFIX) else name)
        if looks_like_path(value) and not value.startswith((RANDOM_PREFIX, "facebook/")):
            return cls(os.path.abspath(os.path.expanduser(value)))
        known = "\n  ".join(MODELS)
        raise UserError(
            f"Unknown model {value!r}. Known models (each also as {RANDOM_PREFIX}NAME, for trials "
            f"without weights):\n  {known}\n"
            "or give a folder with safetensors or a fair-esm .pt file, with a '/' in its path."
        )

    @property
    def is_random(self) -> bool:
        return self.text.startswith(RANDOM_PREFIX)

    @property
    def is_path(self) -> bool:
        return os.path.isabs(self.text)

    @property
    def name(self) -> str:
        """The name in the table; for a path its last part without ``.pt``."""
        if self.is_path:
            return os.path.basename(self.text).removesuffix(".pt")
        return self.text.removeprefix(RANDOM_PREFIX)

    @property
    def queue(self) -> str:
        """The stem of this model's queue names, safe in Redis keys and on a dashboard."""
        if self.is_path:
            return "path-" + hashlib.sha256(self.text.encode()).hexdigest()[:16]
        return self.text.replace(":", ".")

    def spec(self) -> ModelSpec | None:
        """The model's shape, if it can be told without opening weights; else None.

        A producer may name a folder that only its workers have: then nothing is known here.
        """
        if self.name in MODELS:
            return MODELS[self.name]
        config = Path(self.text) / "config.json"
        return read_hugging_face_config(config) if config.is_file() else None


def resolve_layers(layers: Sequence[int], count: int) -> list[int]:
    """Layers from 0 to ``count``; negative ones are counted from the last, which is -1.

    Raises:
        UserError: a layer that a model of ``count`` layers does not have.
    """
    resolved = [layer + count + 1 if layer < 0 else layer for layer in layers]
    for asked, layer in zip(layers, resolved, strict=True):
        if not 0 <= layer <= count:
            raise UserError(
                f"Layer {asked}: this model has layers 0 to {count}, or -1 to -{count + 1}."
            )
    return resolved


def looks_like_path(value: str) -> bool:
    return "/" in value or value.endswith(".pt") or value in {".", ".."}


def read_hugging_face_config(path: Path) -> ModelSpec:
    """Read the shape of a model from a Hugging Face ``config.json``.

    Raises:
        UserError: neither ESM-2 nor DNABERT-S, or not readable as JSON.
    """
    try:
        config = json.loads(path.read_text())
        # DNABERT-S calls itself a BERT; what it has instead of position embeddings tells it apart.
        family = DNABERT_S if "alibi_starting_size" in config else ESM2
        if family is ESM2:
            check_is_esm2(config, path)
        return ModelSpec(
            name=path.parent.name,
            layers=config["num_hidden_layers"],
            dim=config["hidden_size"],
            heads=config["num_attention_heads"],
            family=family,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a readable model configuration ({error!r}).") from error


def check_is_esm2(config: dict[str, object], path: Path) -> None:
    if config.get("model_type") != "esm":
        raise UserError(
            f"{path}: model_type is {config.get('model_type')!r}, but only ESM-2 ('esm') and "
            "DNABERT-S ('bert' with 'alibi_starting_size') can be served from a folder."
        )
    for setting, expected in ESM2_CONFIG.items():
        if config.get(setting) != expected:
            raise UserError(
                f"{path}: {setting} is {config.get(setting)!r}, but ESM-2 has {expected!r}: "
                "this is another model of the family."
            )
