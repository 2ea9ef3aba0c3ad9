"""The published figures that ``worker validate --published`` compares with, from their tensors.

    python -m benchmarks.published FOLDER

writes ``workers/validation/published/figures.json``. FOLDER has NAME.json and NAME.safetensors of
each model, as in ``tests/goldens`` of the FastPLMs repository.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from common.alphabet import ESM2_TOKENS

TARGET = Path(__file__).parents[1] / "workers/validation/published/figures.json"

SOURCE = (
    "https://github.com/Synthyra/FastPLMs, tests/goldens at commit "
    "1f782820f05a1b4a14bb78a310a8bc7838df3ba2"
)

#: The names here of the models there.
NAMES = {
    "esm2_8m": "esm2_t6_8M_UR50D",
    "esm2_35m": "esm2_t12_35M_UR50D",
    "esm2_150m": "esm2_t30_150M_UR50D",
    "esm2_650m": "esm2_t33_650M_UR50D",
    "esm2_3b": "esm2_t36_3B_UR50D",
    "esmc_small": "esmc_300m",
    "esmc_large": "esmc_600m",
    "esmc_6b": "esmc_6b",
}

#: SHA-256 of the authors' own files, with which the vectors of ESM-2 were computed: the hub's have
#: the same weights. From src/fastplms/models.toml at the same commit.
FAIR_ESM = {
    "esm2_t6_8M_UR50D": "46f002a9870c9bdecd0ea887acb1f9a38a6b561e8f8bf8a6990b679b9d31b928",
    "esm2_t12_35M_UR50D": "7f21e80e61d16a71735163ef555d3009afb0c98da74c48e29df08606973cc55e",
    "esm2_t30_150M_UR50D": "881c7176cf198ef8dec26a3c375d40eb58d0c33df95c22562ca6cc6d3f812c62",
    "esm2_t33_650M_UR50D": "ea9d0522b335a8778dea6535a65301f10208dece28cd5865482b0b1fc446168c",
    "esm2_t36_3B_UR50D": "7de8b4082ba15891959ab368b77ce3886697af1efb16d3c9e9e7b0c5d3f07500",
}

#: The arithmetic of each family's vectors: tests/parity/support/native_reference.py there.
ARITHMETIC = {
    "esm2": "FP32 weights and stream, products in BF16 (autocast)",
    "esmc": "weights, stream and products in BF16",
}

#: Largest relative difference of a vector, as docs/numerics.md explains.
TOLERANCE, TOLERANCES = 0.05, {"esm2_t36_3B_UR50D": 0.08}


def main(folder: Path) -> None:
    tensors = {theirs: load_file(folder / f"{theirs}.safetensors") for theirs in NAMES}
    (tokens,) = {token_ids(each) for each in tensors.values()}
    document = {
        "source": SOURCE,
        "license": "Apache-2.0",
        "sequences": ["".join(ESM2_TOKENS[i] for i in ids[1:-1]) for ids in tokens],
        "tokens": tokens,
        "models": [
            described(json.loads((folder / f"{theirs}.json").read_text()), tensors[theirs])
            for theirs in NAMES
        ],
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n")
    print(f"Wrote {TARGET}, {TARGET.stat().st_size:,} bytes.")


def token_ids(tensors: dict[str, Tensor]) -> tuple[tuple[int, ...], ...]:
    """Return the token ids of each protein, without padding."""
    masks = tensors["input__attention_mask"].bool()
    ids = zip(tensors["input__input_ids"], masks, strict=True)
    return tuple(tuple(row[mask].tolist()) for row, mask in ids)


def described(about: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return one model's entry."""
    name, checkpoint = NAMES[about["model_id"]], about["checkpoint"]
    hashes = {file: text.partition("sha256:")[2] for file, text in checkpoint["files"].items()}
    sha256 = {file: found for file, found in hashes.items() if found}
    if name in FAIR_ESM:
        sha256[f"{name}.pt"] = FAIR_ESM[name]
    return {
        "name": name,
        "repository": checkpoint["repo_id"],
        "revision": checkpoint["revision"],
        "license": "MIT",
        "code": [f"{each['url']} {each['revision']}" for each in about["sources"]],
        "arithmetic": ARITHMETIC[about["model_id"].partition("_")[0]],
        "sha256": sha256,
        "tolerance": TOLERANCES.get(name, TOLERANCE),
        **{kind: encoded(vectors) for kind, vectors in pooled(tensors).items()},
    }


def pooled(tensors: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """Return the vectors ``[N, D]`` of the last layer: the mean over residues, the first token."""
    hidden = tensors["output__last_hidden_state"].double()  # [N, T, D]
    residues = tensors["residue_mask"]  # [N, T]
    mean = torch.stack([row[mask].mean(0) for row, mask in zip(hidden, residues, strict=True)])
    return {"mean": mean.float().numpy(), "bos": hidden[:, 0].float().numpy()}


def encoded(vectors: NDArray[np.float32]) -> str:
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
