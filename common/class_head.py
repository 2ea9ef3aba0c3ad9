"""The classification head of a fine-tuned ESM-2: its classes, which are known without PyTorch."""

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.adapters import Adapter, is_adapter, read_adapter
from common.errors import UserError
from common.job.output_form import Include
from common.model_config import Config, parse_config, read_config
from common.model_source import ModelSource

#: transformers' classes with a head, and whether its classes are those of residues.
ARCHITECTURES = {"EsmForSequenceClassification": False, "EsmForTokenClassification": True}

#: The weights of a head's last layer among an adapter's tensors; only that of sequences has two.
LAST_LAYER = re.compile(r"(?:.*\.)?classifier\.(?:modules_to_save\.(?:\w+\.)?)?(out_proj\.)?weight")

#: The most classes: HDF5 has no room for more labels in an attribute.
MOST = 4000

#: The number of classes of a configuration of transformers that does not say it.
USUAL = 2

#: Bytes of the number at the beginning of a safetensors file, which tells its header's length, and
#: the most that a header has.
LENGTH_BYTES, LONGEST = 8, 100 << 20


@dataclass(frozen=True)
class ClassHead:
    """The classes that a head tells apart, of whole sequences or of each residue."""

    of_residues: bool
    labels: tuple[str, ...]
    problem_type: str | None = None

    @property
    def include(self) -> Include:
        """The name of its logits in an output form."""
        return "residue_class_logits" if self.of_residues else "class_logits"


def class_head_of(model: ModelSource) -> ClassHead:
    """Return the head of a model, which is read from its configuration.

    Raises:
        UserError: it has none, or its files are not on this machine.
    """
    found = None
    if (model.is_path or model.is_stored) and model.digest() is None:
        # Models with one encoder and several heads have one fingerprint: their files differ.
        raise UserError(
            f"include class_logits: {model.text} cannot be read on this machine, and only its "
            "files tell which classes there are. Submit where they are."
        )
    if model.is_stored:
        found = class_head_in_bucket(model)
    elif model.is_path and Path(model.text).is_dir():
        found = class_head_in(Path(model.text))
    if found is None:
        raise no_head(model)
    return found


def no_head(model: ModelSource) -> UserError:
    return UserError(
        f"include class_logits: {model.text} has no classification head. Give --model a folder "
        f"that {' or '.join(ARCHITECTURES)} saved, or an adapter with such a classifier."
    )


def checked_include(
    include: tuple[Include, ...], head: ClassHead, model: ModelSource
) -> tuple[Include, ...]:
    """Return what is kept, with ``class_logits`` under the name that a model's head has for it.

    Raises:
        UserError: logits of residues are included, and the head has none.
    """
    if "residue_class_logits" in include and not head.of_residues:
        raise UserError(
            f"include residue_class_logits: the classes of {model.text} are of whole sequences. "
            "Give class_logits."
        )
    named = (head.include if name == "class_logits" else name for name in include)
    return tuple(dict.fromkeys(named))


def class_head_in_bucket(model: ModelSource) -> ClassHead | None:
    from common.model_bucket import config_of

    text, place = config_of(model.text), f"{model.text}/config.json"
    if text is None:  # of a file of fair-esm
        return None
    return head_of_config(parse_config(text, place), place)


def class_head_in(folder: Path) -> ClassHead | None:
    """Return the head of the model in a folder; None if it has none.

    Raises:
        UserError: its configuration cannot be read or used.
    """
    if is_adapter(folder):
        return head_of_adapter(read_adapter(folder))
    path = folder / "config.json"
    return head_of_config(read_config(path), path)


def head_of_config(config: Config, path: Path | str) -> ClassHead | None:
    names = config.get("architectures")
    known = [name for name in names if name in ARCHITECTURES] if isinstance(names, list) else []
    if not known:
        return None
    return ClassHead(ARCHITECTURES[known[0]], labels_of(config, path), problem_type_of(config))


def head_of_adapter(adapter: Adapter) -> ClassHead | None:
    """Return the head that an adapter has, or otherwise its base.

    Labels of its own classifier are those of a ``config.json`` beside it, or of a base without a
    head, if there are as many: those of a base's head are of another task.
    """
    base = adapter.base_folder
    configs = [adapter.folder / "config.json", *([] if base is None else [base / "config.json"])]
    there = [(read_config(path), path) for path in configs if path.is_file()]
    own = own_head(adapter)
    if own is None:
        return head_of_config(*there[-1]) if there and there[-1][1] is configs[-1] else None
    of_residues, classes = own
    for config, path in there:
        if path is not configs[0] and head_of_config(config, path) is not None:
            continue
        labels = labels_of(config, path)
        if len(labels) == classes:
            return ClassHead(of_residues, labels, problem_type_of(config))
    return ClassHead(of_residues, default_labels(classes))


def own_head(adapter: Adapter) -> tuple[bool, int] | None:
    """Return whether an adapter's own classifier is of residues, and its classes.

    Raises:
        UserError: its file cannot be read without PyTorch.
    """
    file = adapter.weights
    if file.suffix != ".safetensors":
        raise UserError(
            f"include class_logits: {file} is pickled, so its classes are not known before it is "
            "loaded. Save the adapter again with safetensors."
        )
    for name, shape in shapes_in(file).items():
        match = LAST_LAYER.fullmatch(name)
        if match is not None and len(shape) == 2:
            return match[1] is None, checked_count(shape[0], file)
    return None


def shapes_in(file: Path) -> Mapping[str, list[int]]:
    """Return the shapes of the tensors of a safetensors file, from its header.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(LENGTH_BYTES), "little")
            header = json.loads(opened.read(min(length, LONGEST)))
        return {name: list(tensor["shape"]) for name, tensor in header.items() if name[:2] != "__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: not a readable safetensors file ({error!r}).") from error


def labels_of(config: Config, path: Path | str) -> tuple[str, ...]:
    """Return the labels of a configuration in the order of the classes.

    Raises:
        UserError: they are not numbered from 0.
    """
    given: Any = config.get("id2label")
    if given is None:
        return default_labels(checked_count(config.get("num_labels", USUAL), path))
    try:
        labels = {int(number): str(label) for number, label in given.items()}
        checked_count(len(labels), path)
        return tuple(labels[number] for number in range(len(labels)))
    except (AttributeError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: id2label is {reprlib.repr(given)}, not labels by their numbers from 0."
        ) from error


def checked_count(classes: object, path: Path | str) -> int:
    """Return a number of classes.

    Raises:
        UserError: it is none, or too many.
    """
    if type(classes) is not int or not 1 <= classes <= MOST:
        raise UserError(
            f"{path}: {reprlib.repr(classes)} classes, and only 1 to {MOST:,} are supported."
        )
    return classes


def default_labels(classes: int) -> tuple[str, ...]:
    """Return the labels that transformers gives to classes without any."""
    return tuple(f"LABEL_{number}" for number in range(classes))


def problem_type_of(config: Config) -> str | None:
    kind = config.get("problem_type")
    return kind if isinstance(kind, str) else None
