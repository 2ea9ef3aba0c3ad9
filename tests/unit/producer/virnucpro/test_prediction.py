"""The files of a prediction, from features in memory."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.errors import UserError
from common.job.joint import FramesReport
from producer.submission.frames import Frames
from producer.virnucpro.calls import Groups
from producer.virnucpro.classifier import Classifier
from producer.virnucpro.features import Features
from producer.virnucpro.folder import FILES, RECORD, check_folder, written_into
from producer.virnucpro.prediction import Contigs, predict
from tests.support.virnucpro import trained_module

#: The contigs' names, and the frames of each; the third has none.
FRAMES_OF = {"a": 3, "b": 2, "none": 0, "c": 4}


@pytest.fixture
def frames(tmp_path) -> Frames:
    table = tmp_path / "c.tsv"
    rows = [f"{id_}\t900\t3\t{count}\t{max(0, 3 - count)}" for id_, count in FRAMES_OF.items()]
    header = "contig\tlength\tchunks\tframes\tchunks_without_frame"
    table.write_text("\n".join([header, *rows]) + "\n")
    count = sum(FRAMES_OF.values())
    report = FramesReport(
        kind="six-frame",
        chunk=300,
        code=1,
        min_frame=1,
        contigs=4,
        bases=3600,
        chunks=12,
        frames=count,
        chunks_without_frame=5,
        contigs_without_frame=1,
    )
    return Frames(
        proteins=tmp_path / "c.faa",
        dna=tmp_path / "c.fna",
        contigs=table,
        report=report,
        duplicate_ids=0,
        input="c.fna",
    )


def features() -> Features:
    ids = [f"{id_}_chunk_{n % 3 + 1}F1" for id_, count in FRAMES_OF.items() for n in range(count)]
    vectors = np.random.default_rng(0).normal(size=(len(ids), 5)).astype(np.float32)
    vectors[1] = np.nan
    return Features(ids, np.arange(len(ids)), vectors)


def classifier() -> Classifier:
    state = trained_module(features=5, hidden=4).state_dict()
    return Classifier.of_state({name: np.array(value) for name, value in state.items()}, "x")


def test_every_contig_has_a_line_with_what_became_of_its_frames(frames, tmp_path):
    found = predict([features()], classifier(), frames, tmp_path, groups=Groups())
    table = pd.read_csv(tmp_path / "contigs.tsv", sep="\t", keep_default_na=False)
    assert table["ID"].tolist() == ["a", "b", "c", "none"]
    by_id = table.set_index("ID")
    for id_, count in FRAMES_OF.items():
        assert by_id.loc[id_, "frames"] == count
    assert by_id.loc["a", "frames_without_score"] == found.frames_without_score == 1
    assert by_id.loc["none", "call"] == "none"
    assert sum(n for tiers in found.counts().values() for n in tiers.values()) == 4
    lines = (tmp_path / "prediction_results.txt").read_text().splitlines()
    assert len(lines) == 1 + sum(FRAMES_OF.values()) - 1


def test_features_of_another_width_are_refused_with_both_widths(frames, tmp_path):
    wide = features()._replace(vectors=np.zeros((9, 7), np.float32))
    with pytest.raises(UserError, match="takes 5 numbers for a frame, and these models give 7"):
        predict([wide], classifier(), frames, tmp_path, groups=Groups())


def test_rows_are_those_of_their_contigs(frames):
    contigs = Contigs.read(frames.contigs)
    rows = np.arange(sum(FRAMES_OF.values()))
    assert contigs.of_rows(rows).tolist() == [0, 0, 0, 1, 1, 3, 3, 3, 3]


# --- the folder ---------------------------------------------------------------------------------


def write_all(folder: Path, text: str) -> None:
    with written_into(folder) as parts:
        for name in FILES:
            (parts / name).write_text(text)


def test_files_of_an_earlier_prediction_are_replaced_and_nothing_is_left_beside_them(tmp_path):
    folder = tmp_path / "calls"
    for text in ("one", "other"):
        check_folder(folder, overwrite=False)
        write_all(folder, text)
        found = {path.name: path.read_text() for path in folder.iterdir()}
        assert found == dict.fromkeys(FILES, text)


def test_an_error_leaves_the_earlier_files_and_no_new_folder(tmp_path):
    folder = tmp_path / "calls"
    write_all(folder, "one")
    for place in (folder, tmp_path / "new"):
        with pytest.raises(UserError, match="cannot be written"), written_into(place) as parts:
            (parts / "no folder" / RECORD).write_text("other")
    assert {path.read_text() for path in folder.iterdir()} == {"one"}
    assert not (tmp_path / "new").exists()


def test_other_files_are_kept_unless_the_user_says_so(tmp_path):
    (tmp_path / "contigs.tsv").write_text("the user's own")
    with pytest.raises(UserError, match=r"has other files, such as contigs\.tsv"):
        check_folder(tmp_path, overwrite=False)
    check_folder(tmp_path, overwrite=True)
    with pytest.raises(UserError, match="or make that: mkdir -p"):
        check_folder(tmp_path / "no" / "calls", overwrite=False)
