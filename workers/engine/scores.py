"""Scores of residues and of records, from the logits of the heads."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.alphabet import ESM2_TOKENS, SPECIAL_TOKENS
from common.embeddings.arrays import Array
from common.job.output_form import Include, OutputForm
from workers.models.classifier import Classifier
from workers.models.lm_head import LMHead

PERPLEXITY: Include = "pseudo_perplexity_unmasked"
MASKED_PERPLEXITY: Include = "pseudo_perplexity"

#: The name of the mean negative log-likelihood among the vectors of segments.
SURPRISE = "surprise"

#: The name of the logits of classes among the vectors of segments.
CLASS_ROWS = "class_logits"

#: The tokens of the 20 amino acids, over which the entropy is taken.
AMINO_ACIDS = slice(ESM2_TOKENS.index("L"), ESM2_TOKENS.index("C") + 1)


@dataclass(frozen=True)
class PackScores:
    """The scores of a pack, on its device."""

    of_residues: Mapping[str, Tensor]  # logits [R, 33], entropy [R]
    #: ``[N, 2]``: the mean negative log-likelihood of a segment's residues, and 1 if it and all
    #: logits are finite.
    of_segments: Tensor


def score(
    head: LMHead, hidden: Tensor, ids: Tensor, cu_seqlens: Tensor, positions: Tensor
) -> PackScores:
    """Return the scores of a pack in FP32, without waiting for the device.

    Args:
        head: the language-model head.
        hidden: ``[T, D]``, the last layer.
        ids: ``[T]``, the tokens.
        cu_seqlens: ``[N + 1]``, where each segment starts.
        positions: ``[R]`` of the residues.
    """
    logits = head(hidden.index_select(0, positions))  # [R, 33]
    observed = ids.index_select(0, positions)[:, None]  # [R, 1]
    surprise = -torch.log_softmax(logits, dim=1).gather(1, observed)  # [R, 1]
    likelihoods = torch.log_softmax(logits[:, AMINO_ACIDS], dim=1)  # [R, 20]
    entropy = -(likelihoods.exp() * likelihoods).sum(1)
    counts = cu_seqlens.diff().long() - SPECIAL_TOKENS
    sums = torch.segment_reduce(
        torch.cat((logits, surprise, entropy[:, None]), dim=1), "sum", lengths=counts, axis=0
    )
    finite = torch.isfinite(sums).all(1).float()
    rows = torch.stack((sums[:, -2] / counts, finite), dim=1)
    return PackScores({"logits": logits, "entropy": entropy}, rows)


@dataclass(frozen=True)
class PackClasses:
    """The logits of classes of a pack, on its device."""

    logits: Tensor  # [R, C] of residues, or [N, C] of segments
    #: ``[N, C + 1]``, or ``[N, 1]`` if the classes are of residues: logits of segments, and 1 if
    #: all are finite.
    of_segments: Tensor


def classify(
    classifier: Classifier, hidden: Tensor, cu_seqlens: Tensor, positions: Tensor
) -> PackClasses:
    """Return the logits of classes in FP32, without waiting for the device.

    Args:
        hidden: ``[T, D]``, the last layer.
        cu_seqlens: ``[N + 1]``, where each segment starts.
        positions: ``[R]`` of the residues.
    """
    if not classifier.head.of_residues:
        logits = classifier(hidden.index_select(0, cu_seqlens[:-1]))  # [N, C], of <cls>
        finite = torch.isfinite(logits).all(1).float()
        return PackClasses(logits, torch.cat((logits, finite[:, None]), dim=1))
    logits = classifier(hidden.index_select(0, positions))  # [R, C]
    counts = cu_seqlens.diff().long() - SPECIAL_TOKENS
    sums = torch.segment_reduce(logits, "sum", lengths=counts, axis=0)
    return PackClasses(logits, torch.isfinite(sums).all(1).float()[:, None])


def read_segments(rows: Tensor, form: OutputForm) -> tuple[Array, Array]:
    """Return the means ``[N, 1]`` and flags ``[N]`` of ``of_segments``, once it is on the host.

    A perplexity that is included, and beyond FP32, counts as not finite.
    """
    host = rows.numpy()
    finite = host[:, 1] != 0
    if PERPLEXITY in form.include:
        finite &= np.isfinite(perplexity(host[:, 0]))
    return host[:, :1], finite


def perplexity(surprise: Array) -> Array:
    """Return ``exp`` of means of ``-ln p`` in their own dtype, Inf where it is beyond that."""
    with np.errstate(over="ignore"):
        found: Array = np.exp(surprise)
    return found
