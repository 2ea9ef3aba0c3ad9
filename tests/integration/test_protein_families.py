"""ESM C and ESM-1b end to end: proteins through the producer and a worker, against the oracles."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.esm1 import ESM1B, random_esm1, save_fair_esm1
from tests.support.esmc import random_esmc, save_folder, save_pth
from tests.support.processes import run_producer
from workers.models.esm2.tokenizer import ESM2_TOKENIZER

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "M", "acdefghiklmnpqrstvwy", "GGSW" * 300]

#: What returns a sequence's last representation ``[L, D]``, special tokens included.
Oracle = Callable[[Tensor], Tensor]


def esmc(save: Callable[..., Path], place: Path) -> tuple[Path, Oracle]:
    model = random_esmc()
    return save(model, place), lambda ids: model.esmc(ids[None]).last_hidden_state[0]


def esm1b(place: Path) -> tuple[Path, Oracle]:
    model = random_esm1(ESM1B)
    last = ESM1B.layers

    def run(ids: Tensor) -> Tensor:
        return model(ids[None], repr_layers=[last])["representations"][last][0]

    return save_fair_esm1(model, place), run


@pytest.mark.parametrize(
    ("name", "longest"),
    [("esmc", 2046), ("esmc_300m_2024_12_v0.pth", 2046), ("esm1b_t33_650M_UR50S.pt", 1022)],
)
def test_every_protein_has_the_oracle_s_vectors(name, longest, tmp_path):
    place = tmp_path / name
    if name.startswith("esm1b"):
        weights, oracle = esm1b(place)
    else:
        weights, oracle = esmc(save_pth if place.suffix else save_folder, place)
    (tmp_path / "in.fasta").write_text("".join(f">p{n}\n{s}\n" for n, s in enumerate(SEQUENCES)))
    done = run_producer(
        *("submit", "in.fasta", "--local", "--model", weights, "--precision", "fp32"),
        *("--include", "mean", "bos", "per_residue", "-o", "out.h5"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert ("1,022 residues: only that many" in done.stderr) == (longest < 1200)
    with h5py.File(tmp_path / "out.h5") as file:
        offsets = file["offsets"][:]
        for n, sequence in enumerate(SEQUENCES):
            ids = torch.from_numpy(ESM2_TOKENIZER([sequence.upper()[:longest]]).ids)
            expected = oracle(ids).numpy()
            found = file["residues"][offsets[n] : offsets[n + 1]]
            np.testing.assert_allclose(found, expected[1:-1], rtol=1e-3, atol=1e-3)  # float16
            np.testing.assert_allclose(file["mean"][n], expected[1:-1].mean(0), atol=5e-5)
            np.testing.assert_allclose(file["bos"][n], expected[0], atol=5e-5)
