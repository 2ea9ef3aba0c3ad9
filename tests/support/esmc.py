"""ESM C with random weights: transformers' model, its formats, and its equations in FP64."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.esmc import EsmcConfig, EsmcForMaskedLM

from common.model_specs import ESMC, ModelSpec, swiglu_width
from tests.support.random_values import fill_at_random

#: Small, with heads of 64 as all published models.
SPEC = ModelSpec(name="esmc_small", layers=3, dim=128, heads=2, family=ESMC)

State = dict[str, Tensor]


def random_esmc(spec: ModelSpec = SPEC, seed: int = 0) -> Any:
    """Return transformers' model in FP32 with random weights."""
    config = EsmcConfig(
        hidden_size=spec.dim,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=swiglu_width(spec.dim),
        attn_implementation="sdpa",
    )
    model = EsmcForMaskedLM(config).eval().requires_grad_(False)
    fill_at_random(model, seed)
    return model


def save_folder(model: Any, folder: Path) -> Path:
    """Write a model as the hub has it."""
    model.save_pretrained(folder)
    return folder


def save_pth(model: Any, file: Path) -> Path:
    """Write a model as the first file of its authors: tensors alone, projections joined."""
    torch.save(authors_names(model.state_dict(), fused_norms=False), file)
    return file


def save_engine_folder(model: Any, folder: Path) -> Path:
    """Write a model as its authors' folders for Transformer Engine."""
    folder.mkdir()
    config = model.config
    sizes = {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_heads": config.num_attention_heads,
    }
    text = ", ".join(f'"{name}": {value}' for name, value in sizes.items())
    (folder / "config.json").write_text(f'{{"model_type": "esmc", "vocab_size": 64, {text}}}')
    named = authors_names(model.state_dict(), fused_norms=True)
    named = {f"esmc.{name}": tensor.contiguous() for name, tensor in named.items()}
    named["esmc.transformer.blocks.0.attn.out_proj._extra_state"] = torch.zeros(1)
    save_file(named, folder / "model.safetensors")
    return folder


def authors_names(state: State, *, fused_norms: bool) -> State:
    """Return tensors under the names of the package ``esm``."""
    ours = {name.removeprefix("esmc."): tensor for name, tensor in state.items()}
    named = {
        "embed.weight": ours["embed_tokens.weight"],
        "transformer.norm.weight": ours["norm.weight"],
    }
    qkv_norm, qkv = ("layer_norm_", "") if fused_norms else ("0.", "1.")
    mlp_norm, fc1, fc2 = ("layer_norm_", "fc1_", "fc2_") if fused_norms else ("0.", "1.", "3.")
    for layer in range(1 + max(int(name.split(".")[1]) for name in ours if "layers." in name)):
        old, new = f"layers.{layer}.", f"transformer.blocks.{layer}."
        attention, mlp = f"{new}attn.layernorm_qkv.", f"{new}ffn."
        for kind in ("weight", "bias"):
            named[f"{attention}{qkv_norm}{kind}"] = ours[f"{old}input_layernorm.{kind}"]
            named[f"{mlp}{mlp_norm}{kind}"] = ours[f"{old}post_attention_layernorm.{kind}"]
        parts = [ours[f"{old}self_attn.{part}_proj.weight"] for part in "qkv"]
        named[f"{attention}{qkv}weight"] = torch.cat(parts)
        for part in "qk":
            named[f"{new}attn.{part}_ln.weight"] = ours[f"{old}self_attn.{part}_norm.weight"]
        named[f"{new}attn.out_proj.weight"] = ours[f"{old}self_attn.o_proj.weight"]
        gates = [ours[f"{old}mlp.{part}_proj.weight"] for part in ("gate", "up")]
        named[f"{mlp}{fc1}weight"] = torch.cat(gates)
        named[f"{mlp}{fc2}weight"] = ours[f"{old}mlp.down_proj.weight"]
    return named


def exact_layers(state: State, spec: ModelSpec, tokens: Tensor) -> list[Tensor]:
    """Return all representations of one sequence by the published equations, in FP64.

    Args:
        state: tensors under transformers' names.
        tokens: ``[L]``, special ones included.

    Returns:
        ``[L, D]`` after 0 to all layers; the last is normed.
    """
    w = {name.removeprefix("esmc."): tensor.double() for name, tensor in state.items()}
    head_dim = spec.dim // spec.heads
    share = math.sqrt(36 / spec.layers)
    x = w["embed_tokens.weight"][tokens]
    found = [x]
    for layer in range(spec.layers):
        at = f"layers.{layer}."
        normed = norm(x, w[f"{at}input_layernorm.weight"], w[f"{at}input_layernorm.bias"])
        q, k, v = (normed @ w[f"{at}self_attn.{part}_proj.weight"].T for part in "qkv")
        q = turn(norm(q, w[f"{at}self_attn.q_norm.weight"]), head_dim)
        k = turn(norm(k, w[f"{at}self_attn.k_norm.weight"]), head_dim)
        heads = []
        for head in range(spec.heads):
            of = slice(head * head_dim, (head + 1) * head_dim)
            weights = torch.softmax(q[:, of] @ k[:, of].T / math.sqrt(head_dim), dim=-1)
            heads.append(weights @ v[:, of])
        x = x + share * (torch.cat(heads, dim=1) @ w[f"{at}self_attn.o_proj.weight"].T)
        normed = norm(
            x, w[f"{at}post_attention_layernorm.weight"], w[f"{at}post_attention_layernorm.bias"]
        )
        gate = normed @ w[f"{at}mlp.gate_proj.weight"].T
        hidden = gate / (1 + torch.exp(-gate)) * (normed @ w[f"{at}mlp.up_proj.weight"].T)
        x = x + share * (hidden @ w[f"{at}mlp.down_proj.weight"].T)
        found.append(x)
    found[-1] = norm(x, w["norm.weight"])
    return found


def norm(x: Tensor, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) * weight + bias


def turn(x: Tensor, head_dim: int) -> Tensor:
    """Rotate each head's pairs ``(i, i + Dh / 2)`` by ``position * 10000^(-2i / Dh)``."""
    length, dim = x.shape
    out = torch.empty_like(x)
    for head in range(0, dim, head_dim):
        for i in range(head_dim // 2):
            angle = torch.arange(length).double() * 10000.0 ** (-2 * i / head_dim)
            a, b = x[:, head + i], x[:, head + i + head_dim // 2]
            out[:, head + i] = a * angle.cos() - b * angle.sin()
            out[:, head + i + head_dim // 2] = b * angle.cos() + a * angle.sin()
    return out
