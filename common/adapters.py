"""Adapters of PEFT: a folder with ``adapter_config.json``, and the base that it was trained on.

A LoRA adapter is a model here: its base with the adapter merged into it. What it asks for beyond
that is refused by name.
"""

import os
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.model_config import Config, read_config
from common.model_revision import check_revision
from common.model_specs import NAMES

CONFIG = "adapter_config.json"

#: The names of an adapter's weights, in the order in which PEFT looks for them.
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

#: A folder or link of this name beside the configuration is the base, whatever that says: it names
#: the base as it was on the machine that trained.
BASE = "base"

#: How to merge an adapter that is not merged here.
MERGE = (
    "In Python: PeftModel.from_pretrained(model, folder).merge_and_unload()"
    ".save_pretrained(new_folder); then give the new folder."
)

#: Settings of LoRA that change what merging is, which is not implemented: only these values are
#: served, or none.
ONLY: dict[str, tuple[Any, ...]] = {
    # The others change the weights of the base before training.
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "ensure_weight_tying": (None, False),
    "kasa_config": (None,),
    "layer_replication": (None,),
    "megatron_config": (None,),
    "monteclora_config": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (None, False),
    "use_qalora": (None, False),
    "velora_config": (None,),
}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, and the name or folder of its base."""

    folder: Path
    config: Config
    #: As ``ModelSource.text`` has it: a known name, perhaps with a revision, or an absolute path.
    base: str

    @property
    def base_folder(self) -> Path | None:
        """The base's folder; None for a model of the hub."""
        return Path(self.base) if os.path.isabs(self.base) else None

    @property
    def weights(self) -> Path:
        """The file with the adapter's tensors.

        Raises:
            UserError: there is none.
        """
        for name in WEIGHTS:
            if (self.folder / name).is_file():
                return self.folder / name
        raise UserError(
            f"{self.folder}: {CONFIG} makes this an adapter (PEFT), but its weights, {WEIGHTS[0]}, "
            "are missing. If the folder has a whole model, remove the configuration."
        )

    @property
    def files(self) -> list[Path]:
        """The adapter's own files."""
        return [self.folder / CONFIG, self.weights]


def is_adapter(folder: Path) -> bool:
    return os.path.isfile(folder / CONFIG)  # noqa: PTH113 (Path.is_file raises for some)


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's configuration.

    Raises:
        UserError: it is no LoRA, has a setting that is not implemented, or its base is no model.
    """
    place = folder / CONFIG
    config = read_config(place)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UserError(
            f"{place}: peft_type is {reprlib.repr(kind)}, and only adapters of LoRA are merged "
            f"here. {MERGE}"
        )
    for setting, served in ONLY.items():
        value = config.get(setting)
        if value not in served:
            raise UserError(
                f"{place}: {setting} is {reprlib.repr(value)}, which is not supported. {MERGE}"
            )
    base = base_of(folder, config)
    if Path(base).is_file():
        raise UserError(
            f"{place}: its base {base} is a file. Give it the folder of the same model, as "
            "transformers saves it."
        )
    if os.path.isabs(base) and is_adapter(Path(base)):
        raise UserError(f"{place}: its base {base} is an adapter too. {MERGE}")
    return Adapter(folder, config, base)


def base_of(folder: Path, config: Config) -> str:
    """Return the base of an adapter: what lies beside it, or what its configuration names.

    Raises:
        UserError: it is neither a known name nor the path of a folder.
    """
    beside = folder / BASE
    if os.path.lexists(beside):
        return os.path.realpath(beside)
    named = config.get("base_model_name_or_path")
    how = (
        f"Give the adapter its base: ln -s /path/of/base {beside}, or correct "
        f"base_model_name_or_path in {folder / CONFIG}."
    )
    if not isinstance(named, str) or not named:
        raise UserError(f"{folder / CONFIG} does not name the base of the adapter. {how}")
    if named.lower() in NAMES:
        revision = config.get("revision")
        name = NAMES[named.lower()]
        return f"{name}@{check_revision(str(revision))}" if revision else name
    if os.path.isabs(named):
        return os.path.realpath(named)
    if (folder / named).is_dir():
        return os.path.realpath(folder / named)
    raise UserError(
        f"{folder / CONFIG}: the base of this adapter, {reprlib.repr(named)}, is neither a model "
        f"that is known by name nor a folder here. {how}"
    )
