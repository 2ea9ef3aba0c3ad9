"""DNABERT-S from its published equations in FP64, and random checkpoints in the published form.

The equations are those of BERT (Devlin et al. 2019) with ALiBi (Press et al. 2022, symmetric) and a
gated MLP, as in MosaicBERT (Portes et al. 2023), for one sequence at a time. No code is shared with
the model under test.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from common.model_specs import DNABERT_S, ModelSpec
from workers.models.dnabert_s.tokenizer import DNATokenizer

Weights = dict[str, Tensor]

#: Exponents, base 2, of the slopes of 12 heads in the published model.
EXPONENTS = [-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5]

#: The slopes by number of heads; 4 is a power of two, whose slopes are powers of 2^(-8/4).
SLOPES = {12: [2.0**e for e in EXPONENTS], 4: [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]}


# --- the equations ----------------------------------------------------------------------------


def reference(
    weights: Weights,
    tokens: Tensor,
    heads: int,
    slopes: list[float] | None = None,
    eps: float = 1e-12,
) -> list[Tensor]:
    """Return the embedding and each layer's output ``[L, D]``, FP64, of one sequence ``[L]``.

    Args:
        weights: under the published names, without a prefix.
        tokens: ids, ``[CLS]`` and ``[SEP]`` among them.
        heads: of attention.
        slopes: of ALiBi; those of the published model if None.
        eps: of LayerNorm.
    """
    w = {name: tensor.double() for name, tensor in weights.items()}
    slopes = SLOPES[heads] if slopes is None else slopes
    words = w["embeddings.word_embeddings.weight"][tokens]
    first_type = w["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(words + first_type, w, "embeddings.LayerNorm", eps)
    found = [x]
    for number in range(layers_of(weights)):
        x = layer(x, inside(w, f"encoder.layer.{number}."), slopes, eps)
        found.append(x)
    return found


def layer(x: Tensor, w: Weights, slopes: list[float], eps: float) -> Tensor:
    length, dim = x.shape
    qkv = affine(x, w, "attention.self.Wqkv").reshape(length, 3, len(slopes), -1)
    attended = attention(*qkv.unbind(1), slopes).reshape(length, dim)
    added = affine(attended, w, "attention.output.dense")
    x = layer_norm(x + added, w, "attention.output.LayerNorm", eps)
    gated = x @ w["mlp.gated_layers.weight"].T
    hidden = gelu(gated[:, : 4 * dim]) * gated[:, 4 * dim :]
    return layer_norm(x + affine(hidden, w, "mlp.wo"), w, "mlp.layernorm", eps)


def attention(q: Tensor, k: Tensor, v: Tensor, slopes: list[float]) -> Tensor:
    """Return attention within one sequence ``[L, H, Dh]``; slopes of 0 mean no ALiBi."""
    heads = [head(q[:, h], k[:, h], v[:, h], slope) for h, slope in enumerate(slopes)]
    return torch.stack(heads, dim=1)


def head(q: Tensor, k: Tensor, v: Tensor, slope: float) -> Tensor:
    """Return one head of attention, ``[L, Dh]``."""
    place = torch.arange(len(q), device=q.device)
    scores = q @ k.T / math.sqrt(q.shape[1]) - slope * (place[:, None] - place[None, :]).abs()
    weights = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
    return weights / weights.sum(dim=1, keepdim=True) @ v


def affine(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    variance = (centred**2).mean(dim=1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


# --- checkpoints ------------------------------------------------------------------------------


def random_checkpoint(spec: ModelSpec, seed: int = 0) -> Weights:
    """Return random weights under the published names.

    Each product is as large as the term it is added to, so that every part of the model matters.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float, mean: float = 0.0) -> Tensor:
        return mean + scale * torch.randn(shape, generator=generator)

    def norm(name: str) -> Weights:
        return {
            f"{name}.weight": draw(spec.dim, scale=0.1, mean=1.0),
            f"{name}.bias": draw(spec.dim, scale=0.1),
        }

    def matrix(name: str, rows: int, columns: int, *, bias: bool = True) -> Weights:
        weights = {f"{name}.weight": draw(rows, columns, scale=columns**-0.5)}
        return weights | ({f"{name}.bias": draw(rows, scale=0.1)} if bias else {})

    dim = spec.dim
    weights = {
        "embeddings.word_embeddings.weight": draw(4096, dim, scale=0.05),
        "embeddings.token_type_embeddings.weight": draw(2, dim, scale=0.05),
        **norm("embeddings.LayerNorm"),
        **matrix("pooler.dense", dim, dim),
    }
    for number in range(spec.layers):
        parts = {
            **matrix("attention.self.Wqkv", 3 * dim, dim),
            **matrix("attention.output.dense", dim, dim),
            **norm("attention.output.LayerNorm"),
            **matrix("mlp.gated_layers", 8 * dim, dim, bias=False),
            **matrix("mlp.wo", dim, 4 * dim),
            **norm("mlp.layernorm"),
        }
        weights |= {f"encoder.layer.{number}.{name}": part for name, part in parts.items()}
    return weights


def save_checkpoint(spec: ModelSpec, weights: Weights, folder: Path) -> Path:
    """Write a folder in the published form: configuration, weights and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "bert",
        "alibi_starting_size": 512,
        "num_hidden_layers": spec.layers,
        "hidden_size": spec.dim,
        "num_attention_heads": spec.heads,
        "intermediate_size": 4 * spec.dim,
        "vocab_size": 4096,
        "type_vocab_size": 2,
        "layer_norm_eps": spec.eps,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    DNATokenizer.own().tokenizer.save(str(folder / "tokenizer.json"))
    return folder


# --- inputs -----------------------------------------------------------------------------------


def bounds(lengths: list[int]) -> Tensor:
    """Return ``cu_seqlens`` of segments with these lengths."""
    return F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int()


def packed(sequences: list[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Return the arguments of ``forward_packed``."""
    lengths = [len(one) for one in sequences]
    return torch.cat(sequences), bounds(lengths), max(lengths)


def padded(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the arguments of ``forward``."""
    tokens = pad_sequence(sequences, batch_first=True, padding_value=7)
    lengths = torch.tensor([len(one) for one in sequences])
    return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]


def random_tokens(lengths: list[int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4096, (length,), generator=generator) for length in lengths]


def small_spec(*, heads: int, dim: int, layers: int = 2) -> ModelSpec:
    name = f"dnabert_s_{heads}_heads"
    return ModelSpec(name=name, layers=layers, dim=dim, heads=heads, family=DNABERT_S)


def layers_of(weights: Weights) -> int:
    return 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))


def inside(weights: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
