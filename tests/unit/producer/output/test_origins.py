"""The source of each row, in outputs of jobs that were read from several sources."""

from dataclasses import replace

import h5py
import pandas as pd
import pyarrow.parquet as pq
import pytest

from common.embeddings.file import load
from common.job.manifest import SourceRecords, find_job, write_manifest
from producer.fleet.fleet import Fleet
from producer.fleet.output_file import origin_of
from producer.output.export import export
from producer.output.job_embeddings import JobEmbeddings
from producer.output.layouts.choice import LAYOUTS
from producer.output.wanted import Wanted

#: Three records of the first source were skipped, and the second had none.
SOURCES = {"a.fa": 7, "empty.fa": 0, "s3://b/b.fa": 11}
EXPECTED = ["a.fa"] * 4 + ["s3://b/b.fa"] * 11


@pytest.fixture
def job(job_with):
    job = job_with("mean")
    sources = tuple(SourceRecords(name=name, records=n) for name, n in SOURCES.items())
    report = job.manifest.report.model_copy(update={"skipped": 3})
    manifest = job.manifest.model_copy(update={"sources": sources, "report": report})
    write_manifest(job.store, manifest)
    return replace(job, manifest=manifest)


def test_a_manifest_keeps_its_sources(job):
    assert find_job(job.store, job.manifest.job) == job.manifest
    assert job.manifest.inputs == list(SOURCES)


def test_the_file_has_each_rows_source_and_what_the_sources_are(job):
    with h5py.File(job.fetch("e.h5")) as file:
        assert file["source"][:].tolist() == [0] * 4 + [2] * 11
        assert file["source_names"].asstr()[:].tolist() == list(SOURCES)
        assert file["source_records"][:].tolist() == list(SOURCES.values())
    with load(job.folder / "e.h5") as found:
        assert found.sources == EXPECTED
    assert JobEmbeddings(job.store, job.manifest).sources == EXPECTED


def test_a_file_with_sources_is_known_as_one_of_its_job_and_replaced(job):
    path = job.fetch("e.h5")
    assert origin_of(LAYOUTS["h5"], path).job == job.manifest.job
    Fleet(store=job.store.url).job(job.manifest.job).fetch(path)


@pytest.mark.parametrize("ids", [None, ("last", "a/b/c")], ids=["all", "chosen"])
def test_tables_have_a_column_of_sources_from_the_job_and_from_its_file(job, ids):
    expected = EXPECTED if ids is None else ["a.fa", "s3://b/b.fa"]
    whole = job.fetch("whole.h5")
    for path in (job.fetch("e.csv", ids=ids), job.fetch("e.parquet", ids=ids)):
        again = path.with_name(f"again{path.suffix}")
        with load(whole) as file:
            export(file, again, wanted=Wanted(ids=ids))
        assert again.read_bytes() == path.read_bytes()
    assert pd.read_csv(job.folder / "e.csv")["source"].tolist() == expected
    table = pq.read_table(job.folder / "e.parquet")
    assert table["source"].to_pylist() == expected


def test_an_output_of_one_source_has_no_column_of_it(job_with):
    job = job_with("mean")
    with h5py.File(job.fetch("e.h5")) as file:
        assert not [name for name in file if name.startswith("source")]
    assert "source" not in pd.read_csv(job.fetch("e.csv"), nrows=1)
    with load(job.folder / "e.h5") as found:
        assert set(found.sources) == {job.manifest.input}
