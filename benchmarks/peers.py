"""Other implementations of the protein models, to time beside this project's.

Each is loaded by a function that returns a run: one forward pass over all proteins, whose tokens
are on the device already. Weights are random: fair-esm has those of this project's model, so that
embeddings can be compared; the others have their own initialisation.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.inputs import random_model, tokens_for
from benchmarks.machine import Run
from common.alphabet import ESM2_TOKENS
from common.model_specs import ESM2, ESMC, ModelSpec, swiglu_width
from workers.engine.packing import make_packs

#: Packages whose versions are printed with the results.
PACKAGES = ("fair-esm", "transformers", "esm-efficient", "flash-attn")

PAD = ESM2_TOKENS.index("<pad>")

HAS_FLASH_ATTN = find_spec("flash_attn") is not None

#: A function of the model's shape, the proteins, the tokens of a batch and the device.
Load = Callable[[ModelSpec, list[str], int, torch.device], Run]


@dataclass(frozen=True)
class Peer:
    name: str
    batch_tokens: int  # at most
    load: Load


def peers(spec: ModelSpec) -> list[Peer]:
    """Return the implementations of a model."""
    padded = Peer("transformers FP16, SDPA, padded, sorted", 16_384, load_transformers)
    if spec.family is ESMC:
        return [padded, replace(padded, batch_tokens=65_536)]
    return esm2_peers(padded) if spec.family is ESM2 else []


def esm2_peers(padded: Peer) -> list[Peer]:
    flash = "" if HAS_FLASH_ATTN else " (flash_attn: torch's kernel)"
    fair_esm_32 = partial(load_fair_esm, dtype=torch.float32)
    fair_esm_16 = partial(load_fair_esm, dtype=torch.float16)
    return [
        Peer("fair-esm FP32, as esm-extract", 4096, fair_esm_32),
        Peer("fair-esm FP16, padded, sorted", 16_384, fair_esm_16),
        padded,
        Peer(f"esm-efficient FP16, packed{flash}", 50_000, load_esm_efficient),
        Peer(f"esm-efficient FP16, packed{flash}", 4096, load_esm_efficient),
    ]


# --- fair-esm ---------------------------------------------------------------------------------


def load_fair_esm(
    spec: ModelSpec, proteins: list[str], tokens: int, device: torch.device, dtype: torch.dtype
) -> Run:
    model = fair_esm_model(spec, device).to(dtype)
    batches = padded_batches(spec, proteins, tokens, device)

    def run() -> None:
        for batch in batches:
            model(batch, repr_layers=[spec.layers])

    return run


@torch.inference_mode()
def fair_esm_means(spec: ModelSpec, proteins: list[str], device: torch.device) -> Tensor:
    """Return FP32 means over residues ``[N, D]``, computed one protein at a time."""
    model = fair_esm_model(spec, device)
    means = []
    for protein in proteins:
        ids = torch.from_numpy(tokens_for(spec, [protein]).ids).to(device)
        found = model(ids[None], repr_layers=[spec.layers])["representations"][spec.layers]
        means.append(found[0, 1:-1].mean(0))
    return torch.stack(means)


def fair_esm_model(spec: ModelSpec, device: torch.device) -> Any:
    """Return fair-esm's model in FP32 with the weights of ``random_model``."""
    import esm

    with torch.device(device):
        model = esm.ESM2(spec.layers, spec.dim, spec.heads).eval().requires_grad_(False)
    unknown = model.load_state_dict(fair_esm_weights(spec, device), strict=False).unexpected_keys
    assert not unknown, unknown[:3]
    return model


#: Names of a block's parts in fair-esm's model.
FAIR_ESM_PARTS = {
    "attention_norm": "self_attn_layer_norm",
    "out": "self_attn.out_proj",
    "mlp_norm": "final_layer_norm",
    "fc1": "fc1",
    "fc2": "fc2",
}


def fair_esm_weights(spec: ModelSpec, device: torch.device) -> dict[str, Tensor]:
    """Return the weights of ``random_model`` under fair-esm's names."""
    model: Any = random_model(spec, device)
    weights = {"embed_tokens.weight": model.embed_tokens.weight}
    for kind in ("weight", "bias"):
        weights[f"emb_layer_norm_after.{kind}"] = getattr(model.final_norm, kind)
        for k, block in enumerate(model.blocks):
            for name, theirs in FAIR_ESM_PARTS.items():
                weights[f"layers.{k}.{theirs}.{kind}"] = getattr(getattr(block, name), kind)
            for name, part in zip("qkv", getattr(block.qkv, kind).chunk(3), strict=True):
                weights[f"layers.{k}.self_attn.{name}_proj.{kind}"] = part
    return weights


# --- transformers -----------------------------------------------------------------------------


def load_transformers(
    spec: ModelSpec, proteins: list[str], tokens: int, device: torch.device
) -> Run:
    with torch.device(device):
        model = transformers_model(spec).eval().requires_grad_(False).half()
    batches = padded_batches(spec, proteins, tokens, device)
    masks = [(batch != PAD).long() for batch in batches]

    def run() -> None:
        for batch, mask in zip(batches, masks, strict=True):
            model(input_ids=batch, attention_mask=mask)

    return run


def transformers_model(spec: ModelSpec) -> Any:
    if spec.family is ESMC:
        return transformers_esmc(spec)
    from transformers import EsmConfig, EsmModel

    config = EsmConfig(
        vocab_size=len(ESM2_TOKENS),
        mask_token_id=ESM2_TOKENS.index("<mask>"),
        pad_token_id=PAD,
        hidden_size=spec.dim,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.dim,
        position_embedding_type="rotary",
        token_dropout=True,
        attn_implementation="sdpa",
    )
    return EsmModel(config, add_pooling_layer=False)


def transformers_esmc(spec: ModelSpec) -> Any:
    from transformers.models.esmc import EsmcConfig, EsmcModel

    config = EsmcConfig(
        hidden_size=spec.dim,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=swiglu_width(spec.dim),
        attn_implementation="sdpa",
    )
    return EsmcModel(config)


# --- esm-efficient ----------------------------------------------------------------------------


def load_esm_efficient(
    spec: ModelSpec, proteins: list[str], tokens: int, device: torch.device
) -> Run:
    with flash_attn_if_missing():
        import esme
    with torch.device(device):
        model = esme.ESM2(spec.layers, spec.dim, spec.heads, dtype=torch.float16)
    model.eval().requires_grad_(False)
    packs = [
        (
            torch.from_numpy(pack.ids).to(device),
            (torch.from_numpy(pack.cu_seqlens).to(device), pack.max_seqlen),
        )
        for pack in make_packs(tokens_for(spec, proteins), tokens)
    ]

    def run() -> None:
        for ids, pad_args in packs:
            model.forward_representation(ids, pad_args=pad_args)

    return run


@contextmanager
def flash_attn_if_missing() -> Iterator[None]:
    """Replace a missing ``flash_attn`` by PyTorch's kernel while esm-efficient is imported.

    Afterwards it is removed: other packages check for it, and would use functions it lacks.
    """
    if HAS_FLASH_ATTN:
        yield
        return
    names = ("flash_attn", "flash_attn.bert_padding")
    package, padding = (module_from_spec(ModuleSpec(name, loader=None)) for name in names)
    package.flash_attn_varlen_func = torch_varlen_func
    padding.pad_input = padding.unpad_input = None  # for padded batches, which are not run
    sys.modules.update(zip(names, (package, padding), strict=True))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def torch_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    causal: bool = False,
) -> Tensor:
    """Do what esm-efficient uses of ``flash_attn.flash_attn_varlen_func``."""
    from torch.nn.attention.varlen import varlen_attn

    assert not dropout_p
    assert not causal
    return varlen_attn(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)


# --- batches ----------------------------------------------------------------------------------


def padded_batches(
    spec: ModelSpec, proteins: list[str], tokens: int, device: torch.device
) -> list[Tensor]:
    """Return ``esm-extract``'s batches ``[B, T]``, sorted by length, of at most ``tokens``."""
    return [
        pad_sequence(
            [torch.from_numpy(tokens_for(spec, [protein]).ids) for protein in batch],
            batch_first=True,
            padding_value=PAD,
        ).to(device)
        for batch in sorted_batches(proteins, tokens)
    ]


def sorted_batches(proteins: list[str], tokens: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for protein in sorted(proteins, key=len):
        # esm-extract counts one special token (extra_toks_per_seq=1), though there are two.
        if batch and (len(protein) + 1) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(protein)
    yield batch
