"""The table of known models, and the parsing of a ``--model`` value.

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

#: Settings that tell ESM-2 from the older models of its family, whose vocabulary and file format
#: are the same: loaded as ESM-2 they would give meaningless numbers.
ESM2_CONFIG = {
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "token_dropout": True,
}

RANDOM_PREFIX = "random:"


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
    """The shape of a model, which is known without its weights."""

    name: str
    layers: int
    dim: int
    heads: int
    family: Family = ESM2

    @property
    def parameters(self) -> int:
        """Number of weights in the blocks, where nearly all of the time is spent."""
        return self.family.block_weights * self.layers * self.dim**2

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

#: Names in the table by repository on the hub.
HUB_NAMES = {spec.family.hub.format(name): name for name, spec in MODELS.items()}


@dataclass(frozen=True)
class ModelSource:
    """The source of weights: ``NAME``, ``random:NAME``, a folder or a ``.pt`` file.

    ``text`` is normalised: two sources of the same weights have equal texts.
    """

    text: str

    @classmethod
    def parse(cls, value: str | Path) -> "ModelSource":
        """Read a ``--model`` value.

        Raises:
            UserError: a bare name is not in the table.
        """
        value = os.path.abspath(value.expanduser()) if isinstance(value, Path) else str(value)
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
            "or give the path of a folder with safetensors or of a fair-esm .pt file; a path "
            "contains a '/'."
        )

    @property
    def is_random(self) -> bool:
        return self.text.startswith(RANDOM_PREFIX)

    @property
    def is_path(self) -> bool:
        return os.path.isabs(self.text)

    @property
    def name(self) -> str:
        """The name in the table, or the last part of a path without ``.pt``."""
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
        """Return the model's shape; None if it cannot be told on this machine.

        A producer may name a folder that exists only on its workers.
        """
        if self.name in MODELS:
            return MODELS[self.name]
        config = Path(self.text) / "config.json"
        return read_hugging_face_config(config) if config.is_file() else None


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


def looks_like_path(value: str) -> bool:
    return "/" in value or value.endswith(".pt") or value in {".", ".."}


def read_hugging_face_config(path: Path) -> ModelSpec:
    """Read the shape of a model from a Hugging Face ``config.json``.

    Raises:
        UserError: the model is neither ESM-2 nor DNABERT-S, or the file is not valid JSON.
    """
    try:
        config = json.loads(path.read_text())
        # DNABERT-S calls itself a BERT; only its ALiBi setting tells it apart.
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
                "this is an older model of the ESM family, which is not supported."
            )
