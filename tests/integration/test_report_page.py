"""The commands of docs/report.md run as written, in their order."""

from pathlib import Path

import pytest

from tests.support.pages import blocks, run_blocks
from tests.support.processes import clean_environment
from tests.support.reports import report_in

FASTA = """>sp|P69905|HBA_HUMAN Hemoglobin subunit alpha
MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSALSDLHAHKLR
>sp|P68871|HBB_HUMAN Hemoglobin subunit beta
MVHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNLKGTFATLSELHCDKLHVDPENF
>again the same as the second
MVHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNLKGTFATLSELHCDKLHVDPENF
>short
MKTAYIAKQR
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny) -> Path:
    """A folder with what all commands of the page write."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "proteins.fasta").write_text(FASTA)
    *_, table = blocks("report.md", "text")
    (folder / "proteins.csv").write_text(table[1])
    replace = {"submit proteins.fasta": f"submit proteins.fasta --model {tiny} --gpus none"}
    # No Redis answers where the page is read.
    environment = clean_environment(VIRNUCPRO_BROKER_URL="redis://127.0.0.1:1/0")
    printed = run_blocks(blocks("report.md", "sh"), folder, environment, replace)
    assert "Wrote a report to embeddings.html: open it in a browser.\n" in printed[0]
    assert printed[1] == "Wrote a report to report.html: open it in a browser.\n"
    return folder


def test_the_report_of_the_file_has_all_sequences(folder):
    report = report_in((folder / "embeddings.html").read_text())
    assert report["subject"] == "embeddings.h5"
    assert report["points"]["ids"] == [
        *("sp|P69905|HBA_HUMAN", "sp|P68871|HBB_HUMAN", "again", "short")
    ]
    assert ["25.0%", "1 identical, not computed again"] in report["cards"]
    assert report["run"] is None


def test_the_table_colours_the_points(folder):
    points = report_in((folder / "report.html").read_text())["points"]
    organism = points["colours"][points["shown"]]
    assert organism["name"] == "organism"
    assert [organism["names"][k] for k in organism["values"]] == [
        *("Homo sapiens", "Homo sapiens", "(none)", "(none)")
    ]


def test_the_report_of_the_job_knows_its_workers(folder):
    environment = clean_environment(
        VIRNUCPRO_BROKER_URL="redis://127.0.0.1:1/0", VIRNUCPRO_STORE="store"
    )
    shell = [("sh", "export JOB=$(ls store)\nproducer report $JOB -o job.html\n")]
    [printed] = run_blocks(shell, folder, environment, {})
    assert printed.startswith("Wrote a report to job.html")
    run = report_in((folder / "job.html").read_text())["run"]
    assert run["timeline"]["recorded"] == run["timeline"]["shards"] == 1
    [worker] = run["timeline"]["workers"]
    assert worker["batches"] == 1
    assert "cpu" in worker["name"]
    assert run["no_ledger"].startswith("Redis was not reached (")
    assert len(run["no_ledger"]) < 300
