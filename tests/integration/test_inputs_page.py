"""Every command and the block of Python in docs/inputs.md run as written."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.job.manifest import read_manifest
from common.store import open_store
from tests.conftest import ROOT
from tests.integration.conftest import BUCKET
from tests.support.processes import Fleet
from tests.support.swift import S3Server

PAGE = (ROOT / "docs" / "inputs.md").read_text()

#: Where a program of its own finds this project, and what these tests run with.
PACKAGES = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

#: The records that each command of the page reads.
RECORDS = {
    "proteins.fasta": 2,
    "proteins.fasta more.fasta.gz": 3,
    "folder/": 2,
    "'folder/**/*.fa'": 2,
    "s3://bucket/proteins.fasta": 2,
    "s3://bucket/folder/ 's3://bucket/*.fa.gz'": 3,
    "--from list.txt": 4,
    "--sequence MKTAYIAKQR --sequence GAVLIMCF": 2,
    "-": 1,
    "--include mean bos proteins.fasta --layers -1,20 more.fasta.gz": 3,
    "reads.fastq.gz --model dnabert_s": 1,
    "table.csv": 2,
    "table.tsv --id-column accession --sequence-column protein": 2,
    "table.parquet --id-column accession --sequence-column protein": 2,
    "reads.bam --model dnabert_s": 1,
    "check proteins.fasta": 2,
    "check folder/ --invalid skip --min-length 3 --json": 2,
    "check proteins.fasta --model esm2_t6_8M_UR50D --bench bench.json": 2,
    "contigs.fna --model dnabert_s": 2,
    "contigs.fna --molecule protein": 2,
    "rna.fna --model dnabert_s": 1,
    "bad.fasta --invalid skip": 2,
    "bad.fasta --invalid x --min-length 3": 2,
    "bad.fasta --invalid skip --unknown x": 3,
    "proteins.fasta --dedup off": 2,
    "proteins.fasta --new --reuse": 2,
}


BENCH = b"""{"machine": "CPU", "model": "esm2_t6_8M_UR50D", "precision": "fp32", "gpus": 0,
"per_residue": false, "packs": {"2048": 9000}, "worker": 8000}"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = "".join(blocks("sh")).splitlines()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with all files that the page names."""
    folder = tmp_path / "page"
    (folder / "folder" / "deep").mkdir(parents=True)
    for name, data in {
        "proteins.fasta": b">a\nMKT\n>b\nGAV\n",
        "more.fasta.gz": gzip.compress(b">c\nMML\n"),
        "folder/x.fa": b">x\nMKV\n",
        "folder/y.fasta": b">y\nMKV\n",
        "folder/deep/z.fa": b">z\nMKV\n",
        "contigs.fna": b">k1\nACGTTGCAAGGCTTAACCGGTATCG\n>k2\nTTGACCATGGCAAGCTTACGGATCC\n",
        "rna.fna": b">r\nACGUUGCAAGGCUUAACCGGUAUCG\n",
        "bad.fasta": b">a\nMKT\n>none\n>j\nMJT\n>b\nMK\n",
        "bench.json": BENCH,
        "list.txt": b"proteins.fasta\n# and\nfolder\n",
        "reads.fastq.gz": gzip.compress(b"@r\nACGT\n+\nIIII\n"),
        "table.csv": b"id,sequence\na,MKT\nb,GAV\n",
        "table.tsv": b"accession\tprotein\na\tMKT\nb\tGAV\n",
    }.items():
        (folder / name).write_bytes(data)
    table = pa.table({"accession": ["a", "b"], "protein": ["MKT", "GAV"]})
    pq.write_table(table, folder / "table.parquet")
    return folder


def records_of(fleet: Fleet, command: str, folder: Path) -> int:
    """Run a command as a shell does; return the number of records of its job, or of its report."""
    program = f"'{sys.executable}' -m producer.cli"
    done = subprocess.run(
        [
            "bash",
            "-c",
            command.replace("producer submit", f"{program} submit").replace(
                "producer check", f"{program} check"
            ),
        ],
        cwd=folder,
        env={**fleet.environment, "PYTHONPATH": PACKAGES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "producer check" in command:
        return records_reported(done.stdout)
    return read_manifest(open_store(fleet.store_url), done.stdout.strip()).report.records


def records_reported(printed: str) -> int:
    """Return the number of records in what ``producer check`` printed."""
    if printed.startswith("{"):
        return int(json.loads(printed)["records"])
    return int(re.search(r"^records +(\d+)", printed, re.MULTILINE)[1])


def key_of(command: str) -> str:
    """Return what the table of this test has for a command."""
    return re.sub(r"^.*producer (submit )?", "", command)


def test_the_table_of_this_test_has_all_commands_of_the_page():
    assert list(map(key_of, COMMANDS)) == list(RECORDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "s3://" not in c])
def test_each_command_reads_what_the_page_says(fleet, folder, command):
    if "reads.bam" in command:
        pysam = pytest.importorskip("pysam")
        with pysam.AlignmentFile(
            str(folder / "reads.bam"), "wb", header={"HD": {"VN": "1.6"}}
        ) as file:
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.query_sequence = "r", 4, "ACGT"
            file.write(read)
    assert records_of(fleet, command, folder) == RECORDS[key_of(command)]


def test_dna_is_refused_as_the_page_says(fleet, folder):
    done = fleet.producer("submit", "contigs.fna", cwd=folder)
    assert done.returncode == 2
    for text in ("contigs.fna: 2 of the", "records with a sequence are DNA or RNA: A, C, G, T, U"):
        assert text in done.stderr
        assert text.removeprefix("contigs.fna: 2") in PAGE


def test_each_command_with_a_bucket_reads_what_the_page_says(
    s3_fleet, s3: S3Server, folder, monkeypatch
):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    client, place = boto3.client("s3"), f"{BUCKET}/page-of-inputs"
    for key in ("proteins.fasta", "folder/x.fa", "folder/y.fasta"):
        body = (folder / key).read_bytes()
        client.put_object(Bucket=BUCKET, Key=f"page-of-inputs/{key}", Body=body)
    body = gzip.compress(b">c\nMML\n")
    client.put_object(Bucket=BUCKET, Key="page-of-inputs/c.fa.gz", Body=body)
    for command in COMMANDS:
        if "s3://" in command:
            expected = RECORDS[key_of(command)]
            there = command.replace("s3://bucket", f"s3://{place}")
            assert records_of(s3_fleet, there, folder) == expected


def test_the_block_of_python_prints_what_it_should(fleet, folder):
    script = "".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=folder,
        env={**fleet.environment, "PYTHONPATH": PACKAGES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[('proteins.fasta', 2), ('folder/x.fa', 1), ('folder/y.fasta', 1)]",
        "2",
        "True 4 2 1 1",
    ]
