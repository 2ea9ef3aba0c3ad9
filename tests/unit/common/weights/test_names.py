"""Which files of a folder are downloaded: one set of weights, and what belongs to it."""

import pytest

from common.errors import UserError
from common.weights.names import chosen

PARTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("weights", "left"),
    [
        (["model.safetensors"], ["pytorch_model.bin", "tf_model.h5", "README.md"]),
        (["model.safetensors.index.json", *PARTS], ["pytorch_model.bin"]),
        (PARTS, ["flax_model.msgpack"]),
        (["pytorch_model.bin"], ["training_args.bin", "optimizer.pt"]),
    ],
    ids=["one file", "an index", "parts", "pickled"],
)
def test_one_set_of_weights_is_taken_with_what_belongs_to_it(weights, left):
    beside = ["config.json", "tokenizer.json", "vocab.txt"]
    assert chosen([*weights, *beside, *left], "here") == sorted([*weights, *beside])


def test_an_adapter_is_taken_too_so_that_it_is_refused():
    names = ["config.json", "model.safetensors", "adapter_config.json"]
    assert "adapter_config.json" in chosen(names, "here")


@pytest.mark.parametrize(
    ("names", "missing"),
    [([], "model.safetensors"), (["config.json"], "model.safetensors"), (PARTS, "config.json")],
    ids=["nothing", "no weights", "no shape"],
)
def test_what_is_no_model_is_refused_with_what_is_there(names, missing):
    with pytest.raises(UserError, match=f"s3://b/x: no {missing}") as caught:
        chosen(names, "s3://b/x")
    assert str(caught.value).endswith(f"It has: {', '.join(sorted(names)) or 'nothing'}.")
