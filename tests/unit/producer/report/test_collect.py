"""A report of a job and of its file say the same; one of an unfinished job says what is done."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from common.embeddings.file import load
from common.errors import UserError
from common.job.layout import quarantine_key, shard_key
from common.rungs import Rung
from producer.report.collect import Asked, report_of_file, report_of_job
from producer.report.contents import Report
from tests.support.outputs import BATCH_RECORDS, HEADERS, QUARANTINED, HardJob, hard_job
from tests.support.stores import folder_store

#: What is asked of a report without options.
ALL = Asked()


@pytest.fixture
def job_with(tmp_path) -> Callable[..., HardJob]:
    return lambda *include, **options: hard_job(
        folder_store(tmp_path / "store"), tmp_path / "outputs", *include, **options
    )


def no_redis():
    raise UserError("No Redis answers")


def of_job(job: HardJob, asked: Asked = ALL) -> Report:
    return report_of_job(job.store, job.manifest, no_redis, asked)


def of_file(job: HardJob, asked: Asked = ALL) -> Report:
    with load(job.fetch("e.h5")) as file:
        return report_of_file(file, asked)


@pytest.mark.parametrize("include", [("mean",), ("bos", "per_residue")], ids=["mean", "bos"])
def test_a_job_and_its_file_have_the_same_map(job_with, include):
    job = job_with(*include)
    ours, files = of_job(job), of_file(job)
    assert ours.points.ids == files.points.ids
    assert ours.points.headers == files.points.headers
    assert len(ours.points.ids) == len(HEADERS) - 1  # one has no embedding
    [first], [second] = ours.points.projections, files.points.projections
    np.testing.assert_array_equal(first.coordinates, second.coordinates)
    assert ours.precisions == files.precisions == (("none", 1), ("fp16", 13), ("fp32", 1))
    np.testing.assert_array_equal(ours.lengths.counts, files.lengths.counts)
    assert f"its {include[0]} vector" in ours.map_notes[0]
    assert files.run is None


def test_a_report_of_a_job_says_how_it_was_computed(job_with):
    report = of_job(job_with())
    assert [(r.rung, r.rows) for r in report.run.ladder] == [("fp16", 13), ("fp32", 1)]
    [bad] = report.run.unstable_shown
    assert bad.id == HEADERS[QUARANTINED].split()[0]
    assert report.run.timeline is None  # the shards are without who computed them
    assert report.run.no_ledger == "Redis was not reached (No Redis answers)"
    assert ("15", "sequences") in report.cards
    assert ("1", "without an embedding") in report.cards
    assert ("4", "batches done") in report.cards
    assert report.warnings == ("Warning: nothing.",)


def test_of_an_unfinished_job_the_batches_that_are_done_are_shown(job_with):
    job = job_with()
    manifest = job.manifest
    job.store.delete(shard_key(manifest.job, 1, Rung.FP16))
    # Rows of this batch wait for a retry.
    job.store.delete(quarantine_key(manifest.job, 3))
    report = of_job(job)
    done = BATCH_RECORDS[0] + BATCH_RECORDS[2]
    assert len(report.points.ids) == done
    assert report.warnings[0].startswith(
        f"Not all is embedded: the figures are of {done} of 15 sequences"
    )


def test_a_job_of_which_nothing_is_done_has_a_report_without_a_map(job_with):
    job = job_with()
    job.store.delete(f"{job.manifest.job}/output/")
    report = of_job(job)
    assert report.points is None
    assert report.lengths is None
    assert report.run.ladder == ()
    assert ("0 of 4", "batches done") in report.cards


def test_without_a_vector_for_each_sequence_there_is_no_map(job_with):
    job = job_with("per_residue")
    for report in (of_job(job), of_file(job)):
        assert report.points is None
        assert report.map_notes[0].startswith("There is no map")
        assert report.lengths.counts.sum() == len(HEADERS)


def test_columns_of_a_table_are_colours_and_the_first_is_shown(job_with, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("id,host\nP69905,human\n.,mouse\n")
    report = of_job(job_with(), Asked(csv=table))
    assert [colour.name for colour in report.points.colours] == ["length", "precision", "host"]
    assert report.points.shown == 2
    host = report.points.colours[2]
    assert host.names[host.values[0]] == "human"


def test_identical_sequences_are_counted_where_a_file_says_so(job_with):
    job = job_with()
    with load(job.fetch("e.h5")) as file:
        file.attributes |= {"records_identical": 3, "records_reused": 6}
        cards = report_of_file(file, Asked()).cards
    assert ("20.0%", "3 identical, not computed again") in cards
    assert ("40.0%", "6 taken over from earlier jobs") in cards


def test_a_report_names_no_folder_and_no_owner(job_with):
    job = job_with()
    manifest = job.manifest.model_copy(
        update={"input": "/home/ada/secret/in.fa", "owner": "ada@host"}
    )
    report = of_job(replace(job, manifest=manifest))
    assert ("input", "in.fa") in report.facts
    assert "ada" not in str(report)
