"""A ``--model`` value to a model ready to serve."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.errors import UserError
from common.model_specs import DNABERT_S, MODELS, ModelSource, ModelSpec
from common.rungs import should_use_fp16
from workers.models.dnabert_s import checkpoint as dnabert_checkpoint
from workers.models.dnabert_s.model import DNABERTS
from workers.models.dnabert_s.tokenizer import DNATokenizer
from workers.models.encoder import Encoder
from workers.models.esm2 import checkpoint as esm2_checkpoint
from workers.models.esm2.model import ESM2
from workers.models.esm2.tokenizer import tokenize_esm2
from workers.models.random_weights import random_weights
from workers.models.tokens import Tokens
from workers.models.weight_files import State, first_line, read_hugging_face, weight_files

#: Values of each tensor that go into the fingerprint: enough to tell any two trainings apart,
#: few enough that 3 billion parameters are told apart in a second.
FINGERPRINT_SAMPLE = 4096

Tokenize = Callable[[Sequence[str]], Tokens]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to serve, its tokenizer, and what names its weights."""

    model: Encoder
    tokenize: Tokenize
    source: ModelSource
    fingerprint: str

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec


def load_model(
    source: ModelSource | str, *, device: torch.device | str = "cpu", dtype: torch.dtype
) -> LoadedModel:
    """Build a model with its weights on ``device`` in ``dtype``, in evaluation mode.

    ``VIRNUCPRO_DISABLE_FP16`` makes it FP32, whatever ``dtype`` says.

    Raises:
        UserError: the weights cannot be had, are not the model's, do not fit each other, or are
            too large for ``dtype``.
    """
    source = ModelSource.parse(source) if isinstance(source, str) else source
    dtype = dtype if dtype == torch.float32 or should_use_fp16() else torch.float32
    spec, state, tokenize = read_weights(source)
    fingerprint = fingerprint_of(state, vocabulary_of(tokenize))
    with torch.device("meta"):
        model = model_class(spec)(spec)
    exact = dict(model.named_buffers())
    on_device = {
        name: tensor.to(device, torch.float32 if name in exact else dtype)
        for name, tensor in state.items()
    }
    check_range(source, state, on_device)
    try:
        model.load_state_dict(on_device, assign=True)
    except RuntimeError as error:
        problems = "\n".join(str(error).splitlines()[1:4])
        raise UserError(
            f"{source.text}: these weights do not make {article(spec.family.name)} of "
            f"{spec.layers} layers and width {spec.dim}:\n{problems}"
        ) from error
    return LoadedModel(model.eval().requires_grad_(False), tokenize, source, fingerprint)


def model_class(spec: ModelSpec) -> type[Encoder]:
    return DNABERTS if spec.family is DNABERT_S else ESM2


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "AEIOU" else f"a {noun}"


def check_range(source: ModelSource, state: State, cast: State) -> None:
    """Refuse weights that are not finite, or not in the dtype that they are to be served in: no
    input could have a finite embedding.
    """
    for name, tensor in cast.items():
        if bool(torch.isfinite(tensor).all()):
            continue
        if not bool(torch.isfinite(state[name]).all()):
            raise UserError(f"{source.text}: {name} has NaN or Inf in it: the file is damaged.")
        raise UserError(
            f"{source.text}: {name} has weights beyond {torch.finfo(tensor.dtype).max:.4g}, where "
            f"{tensor.dtype} ends. Try --precision bf16 or fp32."
        )


def read_weights(source: ModelSource) -> tuple[ModelSpec, State, Tokenize]:
    """Read the shape, the weights (under this project's names) and the tokenizer of ``source``."""
    if source.is_random:
        spec = MODELS[source.name]
        own = DNATokenizer.own() if spec.family is DNABERT_S else tokenize_esm2
        return spec, random_weights(model_class(spec), spec), own
    if not source.is_path:
        return read_folder(download(MODELS[source.name]))
    path = Path(source.text)
    if path.is_dir():
        return read_folder(path)
    if path.is_file():
        return *esm2_checkpoint.read_fair_esm(path), tokenize_esm2
    raise UserError(f"{path}: no such folder or file with weights.")


def read_folder(folder: Path) -> tuple[ModelSpec, State, Tokenize]:
    spec, raw = read_hugging_face(folder)
    if spec.family is DNABERT_S:
        state = dnabert_checkpoint.from_hugging_face(raw, spec, folder)
        return spec, state, DNATokenizer.from_file(folder / "tokenizer.json")
    return spec, esm2_checkpoint.from_hugging_face(raw, spec, folder), tokenize_esm2


def download(spec: ModelSpec) -> Path:
    """Fetch a model from the Hugging Face hub, or find it in the local cache.

    Only weights, configuration and tokenizer are fetched: no code.

    Raises:
        UserError: neither the hub nor the cache has it.
    """
    from huggingface_hub import snapshot_download

    repository = spec.family.hub.format(spec.name)

    def fetch(*patterns: str) -> Path:
        wanted = ["config.json", "tokenizer.json", *patterns]
        return Path(snapshot_download(repository, allow_patterns=wanted))

    try:
        folder = fetch("*.safetensors")
        # Some models were never converted on the hub.
        return folder if weight_files(folder) else fetch("pytorch_model*.bin")
    except Exception as error:
        raise UserError(
            f"Weights of {repository} are not in the local cache and could not be fetched from "
            f"the Hugging Face hub ({type(error).__name__}: {first_line(error)}).\n"
            "Check the connection (HF_ENDPOINT names a mirror, HF_HOME the cache), or give "
            f"--model a folder with safetensors, or a fair-esm file such as ./{spec.name}.pt."
        ) from error


def vocabulary_of(tokenize: Tokenize) -> dict[str, int]:
    """The tokens that came with the weights; none where they are the same for all weights."""
    return tokenize.vocabulary if isinstance(tokenize, DNATokenizer) else {}


def fingerprint_of(state: State, vocabulary: dict[str, int]) -> str:
    """Name the weights by content: 16 hex digits, the same for both checkpoint formats.

    Hashes each tensor's name, shape and up to ``FINGERPRINT_SAMPLE`` evenly spaced values, and
    each token with its id: with another vocabulary the same weights give other embeddings.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        flat = state[name].flatten()
        sample = flat[:: max(1, flat.numel() // FINGERPRINT_SAMPLE)].float().contiguous()
        digest.update(f"{name}{tuple(state[name].shape)}".encode())
        digest.update(sample.numpy().tobytes())
    for token, number in sorted(vocabulary.items()):
        digest.update(f"{token}\0{number}\0".encode())
    return digest.hexdigest()[:16]
