"""The classification heads of ESM-2: logits of classes of a sequence, or of each residue."""

import torch
from torch import Tensor, nn

from common.class_head import ClassHead, no_head
from common.errors import UserError
from common.model_specs import ESM2, ModelSpec
from common.text import counted
from workers.models.heads import Lazy, with_weights
from workers.models.loading import LoadedModel
from workers.models.weight_files import State


class Classifier(nn.Module):
    """``[..., D]``, the last layer of ESM-2 in any dtype, to logits ``[..., C]``.

    In FP32 at each rung, as the language-model head is. As in transformers, the head for a
    sequence sees its first token, through one more layer.
    """

    def __init__(self, spec: ModelSpec, head: ClassHead) -> None:
        super().__init__()
        self.head = head
        self.dense = None if head.of_residues else nn.Linear(spec.dim, spec.dim)
        self.out_proj = nn.Linear(spec.dim, len(head.labels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.dense is not None:
            x = torch.tanh(self.dense(x))
        logits: Tensor = self.out_proj(x)
        return logits


class LazyClassifier:
    """The head of a loaded model, which goes to the device when it is first asked for."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._classifier = Lazy(build_classifier, loaded)
        self._place = loaded.source.text

    def get(self, name: str | None, classes: int | None) -> Classifier | None:
        """Return the head; None if no logits are asked for.

        Args:
            name: what its logits are called; see ``ClassHead.include``.
            classes: how many of them each has.

        Raises:
            UserError: the model has none, or another one.
        """
        if name is None:
            return None
        classifier = self._classifier.get()
        head, place = classifier.head, self._place
        if (head.include, len(head.labels)) != (name, classes):
            raise UserError(
                f"{place}: its head gives {head.include} of {counted(len(head.labels), 'label')}, "
                f"and {name} of {classes} are asked for: the job was submitted for another model "
                "of this name. Submit the input again."
            )
        return classifier


def build_classifier(loaded: LoadedModel) -> Classifier:
    """Return the head that was read with a model, in FP32 on its device.

    Raises:
        UserError: there is none, or its tensors do not fit the configuration or are not finite.
    """
    place, head = loaded.source.text, loaded.class_head
    if head is None or loaded.spec.family is not ESM2:
        raise no_head(loaded.source)
    state = loaded.classifier
    if head.of_residues:
        state = {f"out_proj.{kind}": tensor for kind, tensor in state.items()}
    with torch.device("meta"):
        module = Classifier(loaded.spec, head)
    expected: State = module.state_dict()
    for name, right in expected.items():
        tensor = state.get(name)
        if tensor is None or tensor.shape != right.shape or not tensor.is_floating_point():
            found = "missing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
            raise UserError(
                f"{place}: {name} of the classifier is {found}, and by its configuration, of "
                f"{counted(len(head.labels), 'label')}, it is {tuple(right.shape)}."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{place}: {name} of the classifier contains NaN or Inf.")
    return with_weights(module, state, loaded)
