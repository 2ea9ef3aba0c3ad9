"""How far the published proteins' vectors are from FP32 where arithmetic or weights are in BF16.

    python -m benchmarks.rounding [--models NAME ...] [--scores S ...]

The tolerances of ``worker validate --published`` rest on it. Weights are random, so that the
activations have unit variance; those of queries and keys are scaled so that the attention scores
have about the standard deviations S. For comparison, the same of a mistake in FP32: embeddings
without the scaling of token dropout.
"""

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import random_model
from common.model_specs import ESM2, MODELS, ModelSpec
from common.rungs import Rung
from workers.engine.pooling import Pooled, pool
from workers.models.encoder import Encoder
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.validation.published.figures import VECTORS, read_published
from workers.validation.published.judge import compare

CPU = torch.device("cpu")

#: The factor that token dropout has without masks, and its inverse undoes.
TOKEN_DROPOUT = 0.88


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [name for name, spec in MODELS.items() if spec.family is ESM2]
    parser.add_argument("--models", nargs="+", default=known[:4], choices=known)
    parser.add_argument("--scores", nargs="+", type=float, default=[1.0, 2.0, 4.0])
    options = parser.parse_args()
    for name in options.models:
        for scores in options.scores:
            print(f"\n{name}, attention scores of standard deviation {scores:g}", flush=True)
            measure(MODELS[name], scores)


@torch.inference_mode()
def measure(spec: ModelSpec, scores: float) -> None:
    """Print the largest difference of each kind of vector, by each way of computing them."""
    model = random_model(spec, CPU)
    for block in model.blocks:
        block.qkv.weight[: 2 * spec.dim] *= scores**0.5
    expected = embed(model)
    for way, found in variants(model):
        differences = [
            compare(found[kind], expected[kind], Rung.FP32, np.inf).difference for kind in VECTORS
        ]
        shown = ", ".join(f"{kind} {d:.2%}" for kind, d in zip(VECTORS, differences, strict=True))
        print(f"  {way:36} {shown}", flush=True)


def variants(model: Encoder) -> Iterator[tuple[str, dict[str, NDArray[np.float32]]]]:
    """Yield ways of computing the vectors, with their names. The model is changed."""
    yield "products in BF16 (autocast)", embed(model, torch.autocast("cpu", torch.bfloat16))
    model.embed_tokens.weight /= TOKEN_DROPOUT
    yield "without token dropout's scaling", embed(model)
    model.embed_tokens.weight *= TOKEN_DROPOUT
    yield "all in BF16", embed(model.bfloat16())
    yield "weights in BF16, arithmetic in FP32", embed(model.float())


def embed(
    model: Encoder, arithmetic: AbstractContextManager[object] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return the vectors ``[N, D]`` of the N published proteins, by their name."""
    tokens = ESM2_TOKENIZER(read_published().sequences)
    ids, cu_seqlens = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.cu_seqlens)
    last = model.spec.layers
    with arithmetic or nullcontext():
        hidden = model.forward_packed(ids, cu_seqlens, int(tokens.lengths.max()), [last])[last]
    rows = pool(hidden[:, None], cu_seqlens, model.spec.family)
    pooled = Pooled.read(rows, layers=1)
    return {kind: pooled.vectors[kind][:, 0] for kind in VECTORS}


if __name__ == "__main__":
    main()
