"""A ZIP archive whose members are written at their place: read by others, and beyond 4 GB."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from common.embeddings.arrays import Embeddings
from common.job.output_form import OutputForm
from producer.output.contents import Contents
from producer.output.layouts.npz import NpzLayout
from producer.output.layouts.placed_zip import PlacedZip
from producer.output.layouts.spool import Spool

#: Vectors of 5 GB: they are holes in the file, which take no room.
ROWS, DIM = 5, 2**28


def archive_with(path: Path, members: dict[str, bytes], text: str) -> None:
    with path.open("w+b") as file:
        placed = PlacedZip(file, {name: len(data) for name, data in members.items()})
        for start in range(0, max(map(len, members.values())), 3):  # in turns
            for name, data in members.items():
                placed.append(name, data[start : start + 3])
        with placed.rest() as archive:
            archive.writestr("text", text)


@pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 4], ids=["small", "as large"])
def test_members_that_are_written_in_turns_are_read_and_their_checksums_hold(
    tmp_path, monkeypatch, limit
):
    members = {"a": b"0123456789", "b": b"", "c": bytes(range(256))}
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    archive_with(tmp_path / "e.zip", members, "some text")
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*members, "text"]
        assert {name: archive.read(name) for name in members} == members
        assert archive.read("text") == b"some text"


def test_a_changed_byte_is_noticed_by_the_checksum(tmp_path):
    archive_with(tmp_path / "e.zip", {"a": b"0123456789"}, "")
    data = (tmp_path / "e.zip").read_bytes()
    (tmp_path / "e.zip").write_bytes(data.replace(b"0123", b"0124"))
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        assert archive.testzip() == "a"


def test_arrays_behind_vectors_of_more_than_4_gb_are_read(tmp_path):
    form = OutputForm(max_residues=10)
    contents = Contents(
        form=form, pooled_dtype="float32", records=ROWS, residues=0, dim=DIM, attributes={}
    )
    rows = Embeddings(
        rows=np.arange(ROWS),
        ids=[f"é{row}" for row in range(ROWS)],
        headers=[""] * ROWS,
        lengths=np.full(ROWS, 7),
        input_lengths=np.full(ROWS, 9),
        precision=np.full(ROWS, 1, np.uint8),
        pooled={},  # or they would be written
        residues=None,
    )
    path = tmp_path / "e.npz"
    with NpzLayout().create(path, contents) as writer:
        writer.write(rows)
        writer.finish({"dim": DIM})
    assert path.stat().st_size > 4 * ROWS * DIM > 2**32
    with np.load(path) as arrays:
        assert arrays["rows"].tolist() == list(range(ROWS))
        assert arrays["input_lengths"].tolist() == [9] * ROWS
        assert arrays["ids"].tolist() == rows.ids
        with arrays.zip.open("mean.npy") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            shape = np.lib.format.read_array_header_1_0(file)[0]
    assert shape == (ROWS, DIM)
    assert arrays.files[0] == "mean"


def test_texts_are_padded_in_parts_and_stay_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("producer.output.layouts.spool.CHUNK_TEXTS", 2)
    texts = ["a", "", "protéine", "🧬", "\rx\u2028"]
    with Spool(tmp_path) as spool:
        spool.append("ids", texts[:3])
        spool.append("ids", [])
        spool.append("ids", texts[3:])
        found = b"".join(spool.padded("ids"))
    assert np.frombuffer(found, "<U8").tolist() == texts
