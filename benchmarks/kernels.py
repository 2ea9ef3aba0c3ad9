"""This project's Triton kernels and fused products, each beside PyTorch's operations for the same.

    python -m benchmarks.kernels [--tokens N]

Both get the same random FP16 tensors in the same run. Printed are medians of many runs, with the
GPU's cache emptied before each, and the largest error of either against FP64. Segments have the
lengths of proteins (``benchmarks.inputs``).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.inputs import random_proteins
from benchmarks.machine import attempt, describe_machine, device_or_exit, release, time_runs
from workers.models import kernels
from workers.models.attention.attention import segment_attention
from workers.models.attention.flash import find_flash_attn, kernel_named
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.models.kernels import hopper
from workers.models.kernels.attention import tiles_of, varlen_attention
from workers.models.kernels.gate import gelu_gate
from workers.models.kernels.norm import layer_norm
from workers.models.kernels.norm_linear import norm_linear_gelu, norm_linear_rotate
from workers.models.kernels.rotary import rotate_in_place
from workers.models.rotary import RotaryEmbedding, rotate
from workers.runtime.device import exact_sums

HEADS = 20

HEAD_DIMS = (16, 32, 64)  # of 8M, 150M, and 650M and larger

DIMS = (320, 1280, 2560)  # of 8M, 650M and 3B

NARROW_DIMS = {320: 16, 480: 32, 640: 32}  # and heads of 8M, 35M (padded) and 150M

GATE_DIM = 4 * 768  # of DNABERT-S


@dataclass(frozen=True)
class Case:
    """One computation in three implementations.

    An implementation that works in place has its own tensor; only its first result is correct.
    """

    fused: Callable[[], Tensor]
    library: Callable[[], Tensor]
    exact: Callable[[], Tensor]  # FP64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--device", default="cuda", help="cpu: to try it, with TRITON_INTERPRET=1")
    options = parser.parse_args()
    device = device_or_exit(options.device)
    print(describe_machine(device), flush=True)
    table = Table("", title=f"{options.tokens:,} tokens, FP16", title_justify="left")
    for column in ("this project, ms", "PyTorch, ms", "ratio", "its error", "PyTorch's error"):
        table.add_column(column, justify="right")
    torch.manual_seed(0)
    with exact_sums(), torch.device(device), torch.inference_mode():
        for name, make in cases(options.tokens).items():
            release()
            figures = attempt(name, lambda make=make: measure(make(), device))
            table.add_row(name, *figures or ["failed"])
    console = Console()
    console.width = max(console.width, 110)  # a pipe's 80 columns would cut the names
    console.print(table)


def measure(case: Case, device: torch.device) -> list[str]:
    """Return the figures of a table row."""
    exact = case.exact()
    errors = [(way().double() - exact).abs().max().item() for way in (case.fused, case.library)]
    del exact
    fused, library = (milliseconds(way, device) for way in (case.fused, case.library))
    figures = [f"{fused:.3f}", f"{library:.3f}", f"{library / fused:.2f}"]
    return figures + [f"{error:.1e}" for error in errors]


def milliseconds(run: Callable[[], Tensor], device: torch.device) -> float:
    if device.type == "cuda":
        return float(kernels.triton.testing.do_bench(run, return_mode="median"))
    return 1000 * time_runs(run, device, 1).median


# --- cases ------------------------------------------------------------------------------------


def cases(tokens: int) -> dict[str, Callable[[], Case]]:
    """Return a function that makes each case, by name: all at once would fill the GPU."""
    return {
        **{f"attention, head dim {d}": partial(attention_case, tokens, d) for d in HEAD_DIMS},
        **{f"attention (Hopper), head dim {d}": partial(hopper_case, tokens, d) for d in HEAD_DIMS},
        **{
            f"flash_attn, head dim {d}": partial(flash_attn_case, tokens, d)
            for d in (32, 64)
            if find_flash_attn() is not None
        },
        **{f"layer_norm, D {d}": partial(norm_case, tokens, d) for d in DIMS},
        **{f"rotate_in_place, head dim {d}": partial(rotary_case, tokens, d) for d in HEAD_DIMS},
        **{f"norm_linear_rotate, D {d}": partial(norm_qkv_case, tokens, d) for d in NARROW_DIMS},
        **{f"norm_linear_gelu, D {d}": partial(norm_fc1_case, tokens, d) for d in NARROW_DIMS},
        f"gelu_gate, D {GATE_DIM}": partial(gate_case, tokens, GATE_DIM),
        **{f"_addmm_activation, D {d} to 4 D": partial(gelu_case, tokens, d) for d in DIMS},
        **{f"addmm_, 4 D to D {d}": partial(sum_case, tokens, d) for d in DIMS},
    }


def attention_case(tokens: int, head_dim: int) -> Case:
    qkv, tiles, library, exact = attention_inputs(tokens, head_dim)
    q, k, v = qkv.unbind(1)
    return Case(lambda: varlen_attention(q, k, v, tiles, None), library, exact)


def hopper_case(tokens: int, head_dim: int) -> Case:
    """Return the case of the Hopper kernel, which also rotates queries: here by an angle of 0."""
    qkv, tiles, library, exact = attention_inputs(tokens, head_dim)
    half = tokens, 1, head_dim // 2
    turns = torch.ones(half), torch.zeros(half)
    return Case(lambda: hopper.attention(qkv.flatten(1), HEADS, tiles, turns=turns), library, exact)


def flash_attn_case(tokens: int, head_dim: int) -> Case:
    """Return the case of the ``flash_attn`` package in this project's place, if it is installed."""
    qkv, _, library, exact = attention_inputs(tokens, head_dim)
    packed = ESM2_TOKENIZER(random_proteins(tokens))
    bounds, longest = torch.tensor(packed.cu_seqlens), int(packed.lengths.max())
    kernel = kernel_named("flash_attn")
    q, k, v = qkv.unbind(1)
    return Case(lambda: kernel(q, k, v, bounds, bounds, longest, longest), library, exact)


def attention_inputs(
    tokens: int, head_dim: int
) -> tuple[Tensor, Tensor, Callable[[], Tensor], Callable[[], Tensor]]:
    """Return QKV ``[T, 3, H, Dh]``, tiles, and attention by PyTorch in FP16 and in FP64."""
    from torch.nn.attention.varlen import varlen_attn

    packed = ESM2_TOKENIZER(random_proteins(tokens))
    longest, lengths = int(packed.lengths.max()), packed.lengths.tolist()
    cu_seqlens = torch.tensor(packed.cu_seqlens)
    qkv = half(tokens, 3, HEADS, head_dim)
    q, k, v = qkv.unbind(1)
    return (
        qkv,
        tiles_of(cu_seqlens, tokens),
        lambda: varlen_attn(q, k, v, cu_seqlens, cu_seqlens, longest, longest),
        lambda: segment_attention(q.double(), k.double(), v.double(), lengths),
    )


def norm_case(tokens: int, dim: int) -> Case:
    x, nothing = half(tokens, dim), torch.zeros(dim)
    norm = nn.LayerNorm(dim, dtype=torch.float16)
    norm.weight.normal_(1.0, 0.1)
    norm.bias.normal_(0.0, 0.1)
    affine = norm.weight.double(), norm.bias.double()
    return Case(
        fused=lambda: layer_norm(x, norm, nothing),
        library=lambda: norm(x),
        exact=lambda: F.layer_norm(x.double(), (dim,), *affine, norm.eps),
    )


def rotary_case(tokens: int, head_dim: int) -> Case:
    qkv = half(tokens, 3 * HEADS * head_dim)
    own = qkv.clone()
    cos, sin = RotaryEmbedding(head_dim)(torch.arange(tokens) % 1024)

    def rows(of: Tensor) -> Tensor:
        """Return queries and keys ``[T, 2 H, Dh]``."""
        return of.view(tokens, 3 * HEADS, head_dim)[:, : 2 * HEADS]

    def fused() -> Tensor:
        rotate_in_place(own, HEADS, cos, sin)
        return rows(own)

    def exact() -> Tensor:
        a, b = rows(qkv).double().chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    return Case(fused=fused, library=lambda: rotate(rows(qkv), cos, sin), exact=exact)


def norm_qkv_case(tokens: int, dim: int) -> Case:
    """Return the case of one kernel for Hopper, beside three operations of PyTorch."""
    head_dim = NARROW_DIMS[dim]
    x, norm, qkv = half(tokens, dim), *norm_and_linear(dim, 3 * HEADS * head_dim)
    nothing, turns = torch.zeros(dim), RotaryEmbedding(head_dim)(torch.arange(tokens) % 1024)

    def turned(found: Tensor) -> Tensor:
        q, k, v = found.unflatten(-1, (3, HEADS, head_dim)).unbind(1)
        return torch.stack((rotate(q, *turns), rotate(k, *turns), v), 1).flatten(1)

    return Case(
        fused=lambda: norm_linear_rotate(x, norm, nothing, qkv, HEADS, turns),
        library=lambda: turned(qkv(norm(x))),
        exact=lambda: turned(exact_product(x, norm, qkv)),
    )


def norm_fc1_case(tokens: int, dim: int) -> Case:
    x, norm, fc1 = half(tokens, dim), *norm_and_linear(dim, 4 * dim)
    nothing = torch.zeros(dim)
    return Case(
        fused=lambda: norm_linear_gelu(x, norm, nothing, fc1),
        library=lambda: F.gelu(fc1(norm(x))),
        exact=lambda: F.gelu(exact_product(x, norm, fc1)),
    )


def norm_and_linear(dim: int, outputs: int) -> tuple[nn.LayerNorm, nn.Linear]:
    return nn.LayerNorm(dim, dtype=torch.float16), nn.Linear(dim, outputs, dtype=torch.float16)


def exact_product(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    normed = F.layer_norm(x.double(), norm.normalized_shape, eps=norm.eps)
    return F.linear(normed, linear.weight.double(), linear.bias.double())


def gate_case(tokens: int, dim: int) -> Case:
    hidden = half(tokens, 2 * dim)
    gate, values = hidden.chunk(2, dim=-1)
    return Case(
        fused=lambda: gelu_gate(hidden),
        library=lambda: F.gelu(gate) * values,
        exact=lambda: F.gelu(gate.double()) * values.double(),
    )


def gelu_case(tokens: int, dim: int) -> Case:
    x, fc1 = half(tokens, dim), nn.Linear(dim, 4 * dim, dtype=torch.float16)
    weight, bias = fc1.weight, fc1.bias
    return Case(
        fused=lambda: torch._addmm_activation(bias, x, weight.t(), use_gelu=True),
        library=lambda: F.gelu(fc1(x)),
        exact=lambda: F.gelu(F.linear(x.double(), weight.double(), bias.double())),
    )


def sum_case(tokens: int, dim: int) -> Case:
    x, hidden = half(tokens, dim), half(tokens, 4 * dim)
    own, fc2 = x.clone(), nn.Linear(4 * dim, dim, dtype=torch.float16)
    fc2.bias.zero_()  # in this project the next LayerNorm adds it
    return Case(
        fused=lambda: own.addmm_(hidden, fc2.weight.t()),
        library=lambda: x + fc2(hidden),
        exact=lambda: x.double() + F.linear(hidden.double(), fc2.weight.double()),
    )


def half(*shape: int) -> Tensor:
    """Return normally distributed FP16 numbers."""
    return torch.randn(shape, dtype=torch.float16)


if __name__ == "__main__":
    main()
