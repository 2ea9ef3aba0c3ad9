"""The attributes that are stored with embeddings: the model that computed them, and how."""

from typing import Any

from common import __version__
from common.alphabet import ESM2_TOKENS
from common.job.output_form import OutputForm
from common.model_specs import resolve_layers
from workers.models.loading import LoadedModel

#: The attribute ``warning`` of embeddings from random weights. A worker replaces an existing shard
#: that has other attributes, so the text must stay the same in all versions.
MEANINGLESS = "random weights: these embeddings mean nothing"


def model_attributes(loaded: LoadedModel, form: OutputForm) -> dict[str, Any]:
    """Return the attributes of all embeddings that a model computes in an output form."""
    tokens = {"logits_tokens": list(ESM2_TOKENS)} if "logits" in form.include else {}
    windows = {} if form.overlap is None else {"window": form.max_residues, "overlap": form.overlap}
    return {
        "model": loaded.source.text,
        "weights": loaded.fingerprint,
        "layers": resolve_layers(form.layers, loaded.spec.layers),
        "dim": loaded.spec.dim,
        "pooling": loaded.spec.family.pooling,
        "version": __version__,
        **windows,
        **loaded.origins,
        **tokens,
        **class_attributes(loaded, form),
        **({"revision": revision} if (revision := loaded.source.revision) else {}),
        **({"warning": MEANINGLESS} if loaded.source.is_random else {}),
    }


def class_attributes(loaded: LoadedModel, form: OutputForm) -> dict[str, Any]:
    """Return the attributes of logits of classes, if they are included."""
    head = loaded.class_head if form.class_logits else None
    if head is None:
        return {}
    return {
        "class_labels": list(head.labels),
        "class_head": loaded.classifier_fingerprint,
        **({} if head.problem_type is None else {"problem_type": head.problem_type}),
    }
