"""The expected content of a result file, and the comparison of two files."""

from pathlib import Path

import dnaio
import esm
import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from tests.support.fair_esm import tokenize


def read_fasta(path: Path) -> list[tuple[str, str]]:
    with dnaio.open(path) as file:
        return [(record.name, record.sequence) for record in file]


@torch.no_grad()
def oracle_residues(model: esm.ESM2, sequence: str, layer: int) -> NDArray[np.float32]:
    """Return fair-esm's representation of each residue, ``[L, D]``."""
    found = model(tokenize([sequence]), repr_layers=[layer])["representations"][layer]
    return found[0, 1:-1].numpy()


def oracle_means(model: esm.ESM2, sequences: list[str], layer: int) -> NDArray[np.float32]:
    return np.stack([oracle_residues(model, sequence, layer).mean(0) for sequence in sequences])


def load(path: Path, group: str = "/") -> dict[str, NDArray]:
    with h5py.File(path) as file:
        return {name: dataset[()] for name, dataset in file[group].items()}


def attributes(path: Path) -> dict[str, object]:
    with h5py.File(path) as file:
        return dict(file.attrs)
