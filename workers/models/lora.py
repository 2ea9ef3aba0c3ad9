"""Merging LoRA adapters, as PEFT saves them, into the weights of their base, in FP32."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from common.adapters import CONFIG, Adapter
from common.errors import UserError
from common.model_config import Config
from workers.models.weight_files import State, read_tensors

#: What PEFT puts before and into the names of the base's tensors.
WRAPPER = "base_model.model."
INSIDE = ".base_layer."

#: What only some classes of a model have before its names.
FAMILY = re.compile(r"^(?:esm|esmc|bert)\.")

#: Names of two tensors that may be one in the base.
EMBEDDINGS = "embeddings.word_embeddings.weight"
DECODER = "lm_head.decoder.weight"

#: What a module has of LoRA: two factors, the bias of the second, and DoRA's magnitudes.
FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<kind>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(?:\.default)?(?:\.(?P<part>weight|bias))?"
)


@dataclass
class Change:
    """The tensors of LoRA that change one module."""

    factors: dict[str, Tensor] = field(default_factory=dict)

    def merged(self, weight: Tensor, scaling: float) -> Tensor:
        """Return a weight in FP32 with the change merged into it.

        ``fan_in_fan_out`` is for layers that these models do not have: PEFT ignores it too.
        """
        weight = weight.float()
        if "embedding_A" in self.factors:
            return weight + scaling * (self.factors["embedding_B"] @ self.factors["embedding_A"]).T
        changed = weight + scaling * (self.factors["B"] @ self.factors["A"])
        if "magnitude_vector" not in self.factors:
            return changed
        norm = torch.linalg.norm(changed, dim=1)
        return (self.factors["magnitude_vector"].flatten() / norm)[:, None] * changed

    @property
    def rank(self) -> int:
        return len(self.factors["A" if "A" in self.factors else "embedding_A"])

    @property
    def is_whole(self) -> bool:
        kinds = self.factors.keys() - {"bias"}
        return kinds in (
            {"A", "B"},
            {"A", "B", "magnitude_vector"},
            {"embedding_A", "embedding_B"},
        )


def merge(adapter: Adapter, base: State) -> State:
    """Return the tensors of a base with those of its adapter merged into them.

    Args:
        base: all tensors of the base, under their published names.

    Raises:
        UserError: the adapter is damaged, or of another base.
    """
    place = adapter.weights
    changes, whole = sorted_out(place)
    merged = dict(base)
    names = {without_family(name): name for name in base}
    for name, tensor in whole.items():
        merged[names.get(without_family(name), name)] = tensor
    for module, change in changes.items():
        if not change.is_whole:
            raise UserError(
                f"{place}: {module} has only {', '.join(sorted(change.factors))} of LoRA: the file "
                "is damaged, or of a newer PEFT."
            )
        try:
            apply(change, merged, names, module, scaling_of(adapter.config, module, change.rank))
        except KeyError as error:
            raise UserError(
                f"{place}: the adapter changes {error.args[0]}, which its base {adapter.base} does "
                f"not have: this is another model than it was trained on. See {CONFIG}."
            ) from error
        except RuntimeError as error:
            raise UserError(
                f"{place}: {module} of the adapter does not fit its base {adapter.base} ({error}): "
                "this is another model than it was trained on."
            ) from error
    # A decoder without weights of its own has those of the base's embeddings, not of the adapter's.
    embeddings = names.get(EMBEDDINGS)
    if embeddings is not None:
        merged.setdefault(DECODER, base[embeddings])
    return merged


def sorted_out(place: Path) -> tuple[dict[str, Change], State]:
    """Return the changes in a file by their modules, and the tensors that replace those of a base.

    Raises:
        UserError: a tensor is neither.
    """
    changes: dict[str, Change] = {}
    whole: State = {}
    for given, tensor in read_tensors(place):
        name = given.removeprefix(WRAPPER)
        if ".original_module." in name:
            continue  # the base's own, which the saved module replaces
        name = name.replace(INSIDE, ".").replace(".modules_to_save.default.", ".")
        match = FACTOR.fullmatch(name)
        if match is not None:
            kind = "bias" if match["part"] == "bias" else match["kind"]
            factors = changes.setdefault(match["module"], Change()).factors
            factors[kind] = tensor.float()
        elif "lora_" in name or not tensor.is_floating_point():
            raise UserError(f"{place}: {given} is a tensor that is not known of LoRA.")
        else:
            whole[name] = tensor
    return changes, whole


def apply(
    change: Change, tensors: State, names: Mapping[str, str], module: str, scaling: float
) -> None:
    """Merge a change into the tensors of its module.

    Raises:
        KeyError: the base has no such tensor.
        RuntimeError: the shapes do not fit.
    """

    def name_of(kind: str) -> str:
        name = f"{module}.{kind}"
        return names.get(without_family(name), name)

    weight = name_of("weight")
    tensors[weight] = change.merged(tensors[weight], scaling)
    if "bias" in change.factors:
        bias = name_of("bias")
        tensors[bias] = tensors[bias].float() + scaling * change.factors["bias"]


def without_family(name: str) -> str:
    return FAMILY.sub("", name)


def scaling_of(config: Config, module: str, rank: int) -> float:
    """Return what the product of a module's factors is multiplied by.

    Raises:
        UserError: the configuration has something else than a number or a pattern.
    """
    try:
        alpha = config["lora_alpha"]
        for pattern, own in (config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = own
                break
        return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)
    except (KeyError, TypeError, AttributeError, ZeroDivisionError, re.error) as error:
        raise UserError(
            f"{CONFIG}: lora_alpha or alpha_pattern cannot be used for {module} ({error!r})."
        ) from error
