"""The digest of a model's files: the same for the same content, and never an earlier one."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import model_digest as module
from common.errors import UserError
from common.model_digest import identities, model_digest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "virnucpro-fleet" / "files"


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)) * 4)
    return path


@pytest.fixture
def remembering(monkeypatch):
    """Files of any size, as soon as they are written."""
    monkeypatch.setattr(module, "LARGE_BYTES", 1)
    monkeypatch.setattr(module, "SETTLED_SECONDS", -1.0)


def change(file: Path) -> None:
    """Change one byte, and leave the size and the time of the last change as they were."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_model_without_files_here_has_no_digest():
    assert model_digest([]) is None


def test_a_digest_is_the_same_in_every_version_of_the_fleet(file):
    """Manifests have it."""
    assert model_digest([file]) == "ae116c7c4af298cd"


def test_a_copy_elsewhere_has_the_same_digest(file, tmp_path):
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / file.name
    copy.write_bytes(file.read_bytes())
    assert model_digest([copy]) == model_digest([file])


@pytest.mark.parametrize("large", [1, 1 << 30])
def test_one_changed_byte_is_another_digest_though_size_and_time_are_the_same(
    file, remembering, monkeypatch, large
):
    monkeypatch.setattr(module, "LARGE_BYTES", large)
    before = model_digest([file])
    change(file)
    assert model_digest([file]) != before


@given(content=st.binary(max_size=200), other=st.binary(max_size=200))
def test_digests_are_equal_if_and_only_if_contents_are(tmp_path_factory, content, other):
    folder = tmp_path_factory.mktemp("files")
    one, two = folder / "one", folder / "sub" / "one"
    two.parent.mkdir()
    one.write_bytes(content)
    two.write_bytes(other)
    assert (model_digest([one]) == model_digest([two])) == (content == other)


def test_pieces_are_hashed_in_order(file, monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 100)
    content = file.read_bytes()
    before = model_digest([file])
    file.write_bytes(content[100:200] + content[:100] + content[200:])
    assert model_digest([file]) != before


def test_a_large_file_is_read_once(file, remembering, cache, monkeypatch):
    first = model_digest([file])
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(module, "hash_file", lambda *_: pytest.fail("read again"))
    assert model_digest([file]) == first


def test_a_file_that_was_written_just_now_is_not_remembered(file, cache, monkeypatch):
    monkeypatch.setattr(module, "LARGE_BYTES", 1)
    model_digest([file])
    assert not cache.exists()


def test_small_files_are_not_remembered(file, cache, monkeypatch):
    monkeypatch.setattr(module, "SETTLED_SECONDS", -1.0)
    model_digest([file])
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_done_without(file, remembering, cache):
    cache.parent.parent.parent.mkdir(exist_ok=True)
    (cache.parent.parent).touch()
    assert model_digest([file]) == model_digest([file])


def test_a_file_that_is_being_written_is_an_error(file, remembering, monkeypatch):
    hash_file = module.hash_file

    def and_change(path: Path) -> str:
        digest = hash_file(path)
        change(path)
        return digest

    monkeypatch.setattr(module, "hash_file", and_change)
    with pytest.raises(UserError, match="changed while it was read"):
        model_digest([file])


def test_a_file_that_is_gone_is_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        model_digest([tmp_path / "none"])


def test_a_file_that_was_replaced_has_another_identity(file):
    before = identities([file])
    assert identities([file]) == before
    change(file)
    assert identities([file]) != before


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"0" * 63, b"0" * 64 + b"\n", b"Z" * 64])
def test_a_damaged_entry_of_the_cache_is_not_believed(file, cache, remembering, damaged):
    right = model_digest([file])
    (entry,) = cache.iterdir()
    entry.write_bytes(damaged)
    assert model_digest([file]) == right
