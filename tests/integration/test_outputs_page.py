"""Every command and every block of Python in docs/outputs.md runs as written, in its order."""

import os
import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.integration.conftest import BUCKET
from tests.support.processes import clean_environment, run_producer
from tests.support.swift import S3Server

PAGE = (ROOT / "docs" / "outputs.md").read_text()

FASTA = """>sp|P69905|HBA_HUMAN Hemoglobin subunit alpha
MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSALSDLHAHKLR
>sp|P68871|HBB_HUMAN Hemoglobin subunit beta
MVHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNLKGTFATLSELHCDKLHVDPENF
>short
MKTAYIAKQR
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny, s3: S3Server) -> Path:
    """A folder with the outputs of all commands of the page."""
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "proteins.fasta").write_text(FASTA)
    environment = clean_environment(**s3.environment())
    for line in "".join(blocks("sh")).splitlines():
        if line.startswith("export "):
            assert line == "export VIRNUCPRO_STORE=store JOB=$(ls store)"
            [job] = (path.name for path in (folder / "store").iterdir() if path.is_dir())
            environment |= {"VIRNUCPRO_STORE": "store", "JOB": job}
            continue
        program, *words = shlex.split(line)
        assert program == "producer"
        words = [environment["JOB"] if word == "$JOB" else word for word in words]
        words = [word.replace("s3://bucket", in_bucket(folder)) for word in words]
        if words[0] == "submit":
            words += ["--model", str(tiny), "--gpus", "none"]
        done = run_producer(*words, cwd=folder, environment=environment)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert "Wrote " in done.stderr, line
    return folder


def in_bucket(folder: Path) -> str:
    name = uuid.uuid5(uuid.NAMESPACE_URL, str(folder)).hex
    return f"s3://{BUCKET}/page-{name}"


def test_the_commands_write_what_the_page_names(folder):
    named = {word for line in blocks("sh") for word in re.findall(r"-o (\S+)", line)}
    written = {path.name for path in folder.iterdir()}
    assert {name for name in named if not name.startswith("s3:")} <= written
    assert pd.read_csv(folder / "some.csv")["id"].tolist() == [
        "sp|P69905|HBA_HUMAN",
        "sp|P68871|HBB_HUMAN",
    ]


def test_the_object_in_the_bucket_is_the_file(folder, s3: S3Server):
    file = folder / "copy.parquet"
    script = (
        "import boto3, sys; bucket, _, key = sys.argv[1][5:].partition('/');"
        "boto3.client('s3').download_file(bucket, key, sys.argv[2])"
    )
    url = f"{in_bucket(folder)}/embeddings.parquet"
    done = subprocess.run(
        [sys.executable, "-c", script, url, str(file)],
        env=clean_environment(**s3.environment()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = pd.read_parquet(folder / "embeddings.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(file), expected)


def test_the_blocks_of_python_print_what_they_should(folder):
    script = "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    dim = int(re.fullmatch(r"\(3, (\d+)\) 1 3", lines[0]).group(1))
    assert lines[1].startswith(f"sp|P69905|HBA_HUMAN (3, {dim}) (93, {dim}) ")
    assert lines[2:6] == [
        f"(3, {dim}) sp|P69905|HBA_HUMAN",
        f"(2, {dim})",
        f"torch.float16 (3, {dim}) 3",
        f"(3, {dim}) ['fp32']",
    ]
    assert lines[6] == "3"
    assert lines[7].startswith("sp|P69905|HBA_HUMAN {")
    assert lines[8] == "3 again.parquet"
