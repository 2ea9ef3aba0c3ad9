"""Where a report may be written, and what it replaces."""

import sys
from pathlib import Path

import pytest

from common.errors import UserError
from producer.fleet.report import report
from tests.support.outputs import hard_job
from tests.support.stores import folder_store


@pytest.fixture
def file(tmp_path) -> Path:
    job = hard_job(folder_store(tmp_path / "store"), tmp_path / "outputs")
    return job.fetch("e.h5")


def test_an_earlier_report_of_the_job_is_replaced(file, tmp_path):
    path = tmp_path / "report.html"
    assert report(file, path) == path
    page = path.read_text()
    path.write_text(page + "<!-- earlier -->")
    report(file, path)
    assert path.read_text() == page
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("text", ["<!doctype html><title>mine</title>", "", "x" * 5000])
def test_another_file_is_replaced_only_if_that_is_asked_for(file, tmp_path, text):
    path = tmp_path / "report.html"
    path.write_text(text)
    with pytest.raises(UserError, match=r"exists and is not a report of job-0123456789ab: name"):
        report(file, path)
    assert path.read_text() == text
    report(file, path, overwrite=True)
    assert "virnucpro-report" in path.read_text()


def test_a_report_of_another_job_is_kept(file, tmp_path):
    path = report(file, tmp_path / "report.html")
    path.write_text(path.read_text().replace("job-0123456789ab", "job-0123456789ab-2"))
    with pytest.raises(UserError, match="not a report of job-0123456789ab"):
        report(file, path)


def test_an_output_of_another_layout_is_refused_with_what_reports_read(file, tmp_path):
    with pytest.raises(UserError, match=r"e\.npz: a report is made of an HDF5 file"):
        report(tmp_path / "e.npz", tmp_path / "report.html")


@pytest.mark.parametrize("name", ["report.pdf", "report", "report.html.gz", "e.h5"])
def test_another_suffix_is_refused(file, tmp_path, name):
    with pytest.raises(UserError, match=r"a report is a page of HTML. Name a file that ends in"):
        report(file, tmp_path / name, overwrite=True)
    assert not (tmp_path / name).exists()


def test_an_object_in_a_bucket_is_refused(file):
    with pytest.raises(UserError, match="a report is written to this machine"):
        report(file, "s3://bucket/report.html")


def test_what_a_report_is_made_from_stays(file, tmp_path):
    table = tmp_path / "table.html"
    table.write_text("id,host\nP69905,human\n")
    with pytest.raises(UserError, match="is what the report is made from"):
        report(file, table, csv=table, overwrite=True)
    other = tmp_path / "file.html"
    other.hardlink_to(file)
    with pytest.raises(UserError, match="is what the report is made from"):
        report(file, other, overwrite=True)
    assert table.read_text().startswith("id,host")


def test_a_folder_that_is_not_there_is_named(file, tmp_path):
    with pytest.raises(UserError, match=r"or make this one: mkdir -p .*/none"):
        report(file, tmp_path / "none" / "report.html")


def test_columns_of_no_table_are_refused(file, tmp_path):
    with pytest.raises(UserError, match=r"--color host: name the table"):
        report(file, tmp_path / "report.html", color="host")


def test_without_plotly_the_message_says_how_to_install_it(file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"plotly is not installed, which draws a report: pip "):
        report(file, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
