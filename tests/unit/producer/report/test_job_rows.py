"""The rows of a job with copies: all of them, and while it is under way those that are known."""

import pytest

from common.errors import UserError
from common.job.layout import shard_key
from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import Rung
from producer.report.collect import Asked, report_of_job
from producer.report.contents import Report
from tests.support.copies import compute, store_job
from tests.support.stores import folder_store

LETTERS = ["MKV", "MKL", "MKV", "GGG", "MKL", "AAA", "TTT", "AAA"]
BATCHES = [[0, 1, 2], [3, 4], [5, 6, 7]]


@pytest.fixture
def job(tmp_path):
    store = folder_store(tmp_path / "store")
    batches = [[Record(row, f"r{row}", LETTERS[row]) for row in rows] for rows in BATCHES]
    manifest = store_job(store, batches, OutputForm(max_residues=9))
    for index in range(manifest.batches):
        compute(store, manifest, index)
    return store, manifest


def report_of(job) -> Report:
    def connected():
        raise UserError("none")

    return report_of_job(*job, connected, Asked())


def test_copies_are_points_too_and_lie_on_their_originals(job):
    report = report_of(job)
    assert report.points.ids == [f"r{row}" for row in range(8)]
    places = report.points.projections[0].coordinates.tolist()
    assert places[0] == places[2] != places[1]
    assert places[1] == places[4]
    assert ("8", "sequences") in report.cards
    assert ("37.5%", "3 identical, not computed again") in report.cards
    assert report.warnings == ("Warning: nothing.",)


@pytest.mark.parametrize(("missing", "rows"), [(0, [5, 6, 7]), (1, [0, 1, 2, 5, 6, 7])])
def test_a_batch_with_copies_of_one_that_is_not_done_is_left_out(job, missing, rows):
    store, manifest = job
    store.delete(shard_key(manifest.job, missing, Rung.FP16))
    report = report_of(job)
    assert report.points.ids == [f"r{row}" for row in rows]
    assert f"the figures are of {len(rows)} of 8 sequences" in report.warnings[0]
