"""Files of classifiers: what is read, what is refused, and that nothing in them runs."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from common.errors import UserError
from producer.virnucpro.classifier import Classifier
from producer.virnucpro.classifier_file import read_classifier, write_classifier
from producer.virnucpro.pickled import LEGACY_MAGIC
from tests.support.virnucpro import trained_module

MODULE = trained_module(features=12, hidden=6)
EXPECTED = Classifier.of_state({k: v.numpy() for k, v in MODULE.state_dict().items()}, "x")

#: What a user's training script does: the class is one of ``__main__``.
SCRIPT = """
import sys, torch
from torch import nn
class MLPClassifier(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.hidden_layer = nn.Linear(features, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.relu = nn.ReLU()
        self.output_layer = nn.Linear(hidden, 2)
        self.dropout = nn.Dropout(0.5)
    def forward(self, x):
        return self.output_layer(self.dropout(self.relu(self.bn1(self.hidden_layer(x)))))
module = MLPClassifier(12, 6)
module.load_state_dict(torch.load(sys.argv[1]))
torch.save(module.eval(), sys.argv[2])
torch.save(module, sys.argv[3], _use_new_zipfile_serialization=False)
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, Path]:
    """Return whole modules as a script saves them, in the format of today and in that before."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(MODULE.state_dict(), folder / "state.pth")
    files = [folder / name for name in ("state.pth", "500_model.pth", "old_300_model.pth")]
    subprocess.run([sys.executable, "-c", SCRIPT, *map(str, files)], check=True)
    return {"zip": files[1], "legacy": files[2]}


@pytest.mark.parametrize(("kind", "chunk"), [("zip", 500), ("legacy", 300)])
def test_a_whole_module_is_read_with_the_chunks_of_its_name(published, kind, chunk):
    found = read_classifier(published[kind])
    assert found.fingerprint == EXPECTED.fingerprint
    assert (found.chunk, found.models, found.norm_eps) == (chunk, None, 1e-5)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model_state_dict": s, "epoch": 3}])
def test_a_state_dict_is_read(tmp_path, legacy, wrap):
    torch.save(
        wrap(MODULE.state_dict()), tmp_path / "s.pt", _use_new_zipfile_serialization=not legacy
    )
    assert read_classifier(tmp_path / "s.pt").fingerprint == EXPECTED.fingerprint


def test_a_state_dict_of_a_module_on_several_gpus_is_read(tmp_path):
    torch.save({f"module.{k}": v for k, v in MODULE.state_dict().items()}, tmp_path / "s.pt")
    assert read_classifier(tmp_path / "s.pt").fingerprint == EXPECTED.fingerprint


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_numbers_of_other_types_become_float32(tmp_path, dtype):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in MODULE.state_dict().items()}
    torch.save(state, tmp_path / "s.pt")
    found = read_classifier(tmp_path / "s.pt")
    assert found.hidden_weight.dtype == np.float32
    np.testing.assert_allclose(found.hidden_weight, EXPECTED.hidden_weight, rtol=1e-3)


def test_safetensors_of_a_state_dict_are_read(tmp_path):
    save_file(MODULE.state_dict(), tmp_path / "s.safetensors")
    found = read_classifier(tmp_path / "s.safetensors")
    assert (found.fingerprint, found.chunk) == (EXPECTED.fingerprint, None)


def test_what_is_written_is_read_with_its_chunks_and_models(tmp_path):
    written = Classifier.of_state(
        EXPECTED.state(), "x", chunk=300, models=("dnabert_s", "esm2_t6_8M_UR50D"), norm_eps=1e-3
    )
    write_classifier(tmp_path / "c.safetensors", written)
    found = read_classifier(tmp_path / "c.safetensors")
    assert found.fingerprint == written.fingerprint != EXPECTED.fingerprint
    assert (found.chunk, found.models) == (300, ("dnabert_s", "esm2_t6_8M_UR50D"))
    assert found.norm_eps == 1e-3


# --- what is refused ----------------------------------------------------------------------------


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def in_zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def in_legacy(data: bytes) -> bytes:
    return b"".join(map(pickle.dumps, (LEGACY_MAGIC, 1001, {}))) + data + pickle.dumps([])


def evil(marker: Path) -> dict[str, object]:
    """Return objects that make a file if they are loaded as pickles usually are."""
    make = f"open({str(marker)!r}, 'w').close()"
    return {
        "system": Call(os.system, f"touch {marker}"),
        "eval": Call(eval, make),
        "exec": Call(exec, make),
        "nested": {"state_dict": OrderedDict(a=[Call(eval, make)])},
        "open": Call(open, str(marker), "w"),
    }


@pytest.mark.parametrize("container", [in_zip, in_legacy])
@pytest.mark.parametrize("kind", evil(Path("x")))
def test_a_pickle_that_calls_something_is_refused_and_nothing_runs(tmp_path, kind, container):
    marker = tmp_path / "ran"
    data = container(pickle.dumps(evil(marker)[kind]))
    path = tmp_path / "500_model.pth"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"is refused: it has .*Nothing in it was run"):
        read_classifier(path)
    assert not marker.exists()


def test_a_pickle_cannot_change_what_reads_the_next_one(tmp_path, published):
    """A pickle may set attributes of what it is given: of a function, a class, a mapping."""
    for module, name in (
        ("torch._utils", "_rebuild_tensor_v2"),
        ("collections", "OrderedDict"),
        ("__main__", "MLPClassifier"),
        ("builtins", "set"),
    ):
        changes = {"__defaults__": (1,), "__code__": 1, "pop": 1, "get": 1, "__init__": 1}
        state = pickle.dumps((None, changes), 2)[2:-1]
        data = b"\x80\x02c" + f"{module}\n{name}\n".encode() + state + b"b."
        (tmp_path / "a.pth").write_bytes(in_zip(data))
        with pytest.raises(UserError):
            read_classifier(tmp_path / "a.pth")
        assert read_classifier(published["zip"]).fingerprint == EXPECTED.fingerprint


def test_a_pickle_that_asks_for_much_memory_gets_none(tmp_path):
    huge = b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b"."  # a memo of 4 billion entries
    (tmp_path / "a.pth").write_bytes(in_zip(huge))
    with pytest.raises(UserError, match="no classifier of VirNucPro"):
        read_classifier(tmp_path / "a.pth")


def test_a_storage_that_is_larger_than_its_file_is_refused(tmp_path):
    torch.save(MODULE.state_dict(), tmp_path / "s.pt")
    with zipfile.ZipFile(tmp_path / "s.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    key = next(name for name in members if name.endswith("data/0"))
    members[key] = members[key][:-4]
    with zipfile.ZipFile(tmp_path / "t.pt", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match="a storage of another size than it says"):
        read_classifier(tmp_path / "t.pt")


def test_a_module_with_hooks_is_refused(tmp_path):
    module = trained_module(features=12, hidden=6)
    module.register_forward_hook(torch.relu)
    torch.save(module, tmp_path / "m.pt")
    with pytest.raises(UserError, match="is refused: it has"):
        read_classifier(tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "is no file of torch.save, or is damaged"),
        ("a.pth", b"PK\x03\x04 is no archive", "is no file of torch.save, or is damaged"),
        ("a.pth", os.urandom(500), "is no file of torch.save, or is damaged"),
        ("a.pth", b">seq\nACGT\n", "is no file of torch.save, or is damaged"),
        ("a.pth", in_zip(pickle.dumps([1, 2])), "is no classifier of VirNucPro"),
        ("a.pth", in_zip(pickle.dumps({"a": 1})), "it has no hidden_layer.weight, but a"),
        ("a.safetensors", b"nonsense", "is no safetensors file, or is damaged"),
    ],
    ids=["empty", "zip", "random", "FASTA", "list", "dict", "safetensors"],
)
def test_other_files_are_refused_with_what_is_wrong(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_classifier(tmp_path / name)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file_is_named_with_where_it_comes_from(tmp_path):
    with pytest.raises(UserError, match=r"500_model\.pth: no such file.*in its repository"):
        read_classifier(tmp_path / "500_model.pth")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.sampled_from(["zip", "legacy"]))
def test_damage_anywhere_is_an_error_or_changes_a_number(published, tmp_path, data, kind):
    content = bytearray(published[kind].read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    path = tmp_path / "a.pth"
    path.write_bytes(bytes(content))
    try:
        found = read_classifier(path)
    except UserError:
        return
    assert found.hidden_weight.shape == (6, 12)
