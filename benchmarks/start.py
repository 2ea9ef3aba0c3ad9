"""The start of a worker: the time from the start of its process to its first claimed batch.

    python -m benchmarks.start [--model esm2_t33_650M_UR50D] [--gpus 0] [--repeats 3]

The weights are random and in a folder in the Hugging Face hub's form, FP32 safetensors. The first
start has an empty cache of compiled kernels; the later ones have the cache that it filled.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.machine import describe_machine, device_or_exit
from benchmarks.peers import fair_esm_weights
from common.job.output_form import OutputForm
from common.model_config import ESM2_SETTINGS
from common.model_source import ModelSource
from common.model_specs import ESM2, MODELS, ModelSpec
from common.rungs import Rung
from tests.support.hugging_face import published_name
from workers.bench.fleet import Plan, measure_fleet

BATCHES, BATCH_TOKENS = 12, 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = [name for name, spec in MODELS.items() if spec.family is ESM2]
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=models)
    parser.add_argument("--gpus", default="0", help="a GPU's number, or none for the CPU")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    on_gpu = options.gpus != "none"
    device = device_or_exit("cuda" if on_gpu else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        weights, cache = Path(folder, "weights"), Path(folder, "kernels")
        size = save_as_published(MODELS[options.model], weights)
        os.environ["TRITON_CACHE_DIR"] = str(cache)
        print(f"{describe_machine(device)}\n{options.model}, {size / 1e9:.1f} GB of weights")
        plan = Plan(
            source=ModelSource.parse(str(weights)),
            spec=MODELS[options.model],
            rung=Rung.FP16 if on_gpu else Rung.FP32,
            form=OutputForm(max_residues=ESM2.max_residues),
            batches=BATCHES,
            batch_tokens=BATCH_TOKENS if on_gpu else BATCH_TOKENS // 20,
            gpus=options.gpus,
            gpu_memory=None,
        )
        for attempt in range(options.repeats):
            speed = measure_fleet(plan, Path(folder), None)
            kernels = "compiled" if attempt == 0 else "from the cache"
            print(f"  {speed.start_seconds:5.1f} s, kernels {kernels}", flush=True)


def save_as_published(spec: ModelSpec, folder: Path) -> int:
    """Write random weights in the hub's form; return the bytes of the file."""
    folder.mkdir()
    weights = {
        published_name(name): tensor.cpu().contiguous()
        for name, tensor in fair_esm_weights(spec, torch.device("cpu")).items()
    }
    config = {
        **{name: values[0] for name, values in ESM2_SETTINGS.items()},
        "model_type": "esm",
        "num_hidden_layers": spec.layers,
        "hidden_size": spec.dim,
        "num_attention_heads": spec.heads,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return (folder / "model.safetensors").stat().st_size


if __name__ == "__main__":
    main()
