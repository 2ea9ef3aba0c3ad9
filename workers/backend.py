"""What is asked of PyTorch as a whole: sums that can be trusted, and blocks compiled once."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from workers.models.encoder import Encoder


@contextmanager
def exact_sums() -> Iterator[None]:
    """Sum matrix products in FP32, and multiply FP32 in FP32 and not in TF32, whatever this
    process has set otherwise.

    By default PyTorch lets cuBLAS add up parts of FP16 and BF16 sums in those types, where they
    may overflow. On an H200 that is no faster.
    """
    matmul = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision()
    fp16 = matmul.allow_fp16_reduced_precision_reduction
    bf16 = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_fp16_reduced_precision_reduction = fp16
        matmul.allow_bf16_reduced_precision_reduction = bf16


def compile_blocks(model: Encoder) -> None:
    """Compile the block that all layers share, once, for any number of tokens."""
    for block in model.block_list():
        block.compile(dynamic=True)
