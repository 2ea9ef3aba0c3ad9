"""Pipelines that embed files by a fleet of one machine: ``deploy/nextflow`` and ``deploy/wdl``."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from tests.conftest import ROOT
from tests.support.contigs import classifier_for, write_contigs
from tests.support.dnabert import random_checkpoint, save_checkpoint
from tests.support.fair_esm import random_fair_esm
from tests.support.fixtures import TINY
from tests.support.hub import Hub, running_hub
from tests.support.hugging_face import to_hugging_face
from tests.support.nextflow import PIPELINE, script_of, task
from tests.support.overflow_dna import DNA_SPEC
from tests.support.processes import clean_environment
from tests.support.results import load

WDL = ROOT / "deploy" / "wdl" / "embed.wdl"
PREDICT_WDL = ROOT / "deploy" / "wdl" / "predict.wdl"
PREDICT_NF = ROOT / "deploy" / "nextflow" / "predict.nf"

#: A model of a prediction, of which no weights are downloaded.
PROTEIN_MODEL = "random:esm2_t6_8M_UR50D"

NAME = "esm2_t6_8M_UR50D"

#: The name of a FASTA file with what a shell reads as something else.
ODD_NAME = """it's (a) "b" & $HOME [1];x.fasta"""

#: Seconds that a pipeline may take.
RUN_SECONDS = 240


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with a small model under the name of a real one."""
    to_hugging_face(random_fair_esm(TINY)).save_pretrained(tmp_path / "model")
    with running_hub() as running:
        running.push_folder(f"facebook/{NAME}", tmp_path / "model", "main")
        yield running


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """An environment as in the image: the commands are on the path, and no weights are there."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, module in (("producer", "producer.cli"), ("worker", "workers.cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -P -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    base = clean_environment(**hub.environment(tmp_path / "cache"))
    path = f"{programs}:{base['PATH']}"
    return {**base, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}


def run(
    words: list[object], environment: dict[str, str], cwd: Path
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [str(word) for word in words],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done


def required(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"needs {tool} (pip install {tool}, in a folder of its own)")
    return found


def assert_embedded(file: Path) -> None:
    with h5py.File(file) as embedded:
        assert embedded.attrs["model"] == NAME
    assert len(load(file)["rows"]) == 25


def test_a_parser_of_nextflow_reads_the_pipeline(tmp_path):
    tool = required("reftrace")
    (tmp_path / "rules.py").touch()
    words = [tool, "lint", "--directory", PIPELINE.parent, "--rules", tmp_path / "rules.py"]
    done = run(words, clean_environment(), tmp_path)
    assert "No issues found" in done.stdout


def test_the_scripts_of_the_nextflow_pipeline_embed_a_file_without_the_hub_once_weights_are_there(
    hub, environment, examples, tmp_path
):
    weights = {"folderOf(model)": NAME, "model": NAME}
    script = task(tmp_path / "work" / "download", "DOWNLOAD", weights, {})
    run(["bash", "-ue", script], environment, script.parent)
    kept = tmp_path / "kept"  # as storeDir does
    shutil.move(script.parent / NAME, kept)
    asked = len(hub.asked)
    values = {"params.gpus": "none", "model": NAME}
    shutil.copy(examples, tmp_path / ODD_NAME)
    inputs = {"fasta": tmp_path / ODD_NAME, "weights": kept}
    # The names of a task's folders may be long, and so may that of its files in passing.
    script = task(tmp_path / "work" / ("e" * 100), "EMBED", values, inputs)
    environment["TMPDIR"] = str(script.parent)
    run(["bash", "-ue", script], environment, script.parent)
    assert_embedded(script.parent / "embeddings.h5")
    assert len(hub.asked) == asked
    left = {path.name for path in script.parent.iterdir()}
    assert left == {".command.sh", "input.fasta", "weights", "embeddings.h5"}


def test_the_nextflow_pipeline_publishes_each_file_under_the_name_of_its_input():
    """And refuses equal names before the first task: only Nextflow could run this part."""
    text = PIPELINE.read_text()
    assert re.search(r"publishDir .*saveAs: \{ \"\$\{name\}\.h5\" \}", text)
    before, _, call = text.partition("workflow {")[2].partition("    DOWNLOAD(")
    assert re.search(r"def equal = inputs\.groupBy \{ it\.name \}", before)
    assert re.search(r"if \(equal\) \{\n        error ", before)
    assert "inputs.collect { [it.name, it] }" in call


@pytest.mark.parametrize("workflow", [WDL, PREDICT_WDL], ids=["embed", "predict"])
def test_miniwdl_finds_nothing_in_the_wdl(workflow, tmp_path):
    words = [required("miniwdl"), "check", "--strict", "--no-shellcheck", workflow]
    run(words, clean_environment(), tmp_path)


def test_miniwdl_runs_the_workflow_and_again_without_the_hub_with_the_weights_of_the_first_run(
    hub, environment, examples, tmp_path
):
    tool = required("miniwdl")
    # Without containers: the commands run here.
    environment["MINIWDL__SCHEDULER__CONTAINER_BACKEND"] = "bare"
    second = tmp_path / ODD_NAME
    shutil.copy(examples, second)
    given = {"fasta": [str(examples), str(second)], "model": NAME, "gpus": "none"}

    def embed(folder: str, **more: str) -> dict[str, list[str]]:
        (tmp_path / f"{folder}.json").write_text(json.dumps({**given, **more}))
        words = [tool, "run", WDL, "--input", tmp_path / f"{folder}.json"]
        done = run([*words, "--dir", tmp_path / folder / "."], environment, tmp_path)
        outputs: dict[str, list[str]] = json.loads(done.stdout)["outputs"]
        return outputs

    outputs = embed("first")
    names = [Path(path).name for path in outputs["embed.embeddings"]]
    assert names == ["proteins.fasta.h5", f"{ODD_NAME}.h5"]
    asked = len(hub.asked)
    outputs = embed("again", weights=str(outputs["embed.weights_used"]))
    for path in outputs["embed.embeddings"]:
        assert_embedded(Path(path))
    assert len(hub.asked) == asked


# --- predictions --------------------------------------------------------------------------------


@pytest.fixture
def prediction(tmp_path) -> dict[str, Path]:
    """Return contigs, a small model of DNA, and a classifier for its features and a protein's."""
    dna = save_checkpoint(DNA_SPEC, random_checkpoint(DNA_SPEC), tmp_path / "dnabert")
    contigs = write_contigs(tmp_path / ODD_NAME.replace("fasta", "fna"), 10, longest=700)
    classifier = classifier_for(tmp_path / "my (1).safetensors", DNA_SPEC.dim + 320, chunk=500)
    return {"contigs": contigs, "classifier": classifier, "dna": dna}


def test_the_script_of_the_nextflow_pipeline_predicts(environment, prediction, tmp_path):
    folder = tmp_path / "work"
    (folder / "classifier").mkdir(parents=True)
    (folder / "contigs.fna").symlink_to(prediction["contigs"])
    (folder / "classifier" / "c.safetensors").symlink_to(prediction["classifier"])
    for number in (1, 2):  # both have a file of the same name
        (folder / f"weights-{number}" / "cache").mkdir(parents=True)
        (folder / f"weights-{number}" / "cache" / "same").touch()
    values = {
        "dna_model": str(prediction["dna"]),
        "protein_model": PROTEIN_MODEL,
        "gpus": "none",
    }
    named = {f"params.{name}": value for name, value in values.items()}
    script = folder / ".command.sh"
    script.write_text(script_of("PREDICT", named, {}, PREDICT_NF))
    run(["bash", "-ue", script], environment, folder)
    assert len((folder / "calls" / "contigs.tsv").read_text().splitlines()) == 11


def test_miniwdl_runs_the_prediction(environment, prediction, tmp_path):
    tool = required("miniwdl")
    environment["MINIWDL__SCHEDULER__CONTAINER_BACKEND"] = "bare"
    (tmp_path / "weights").mkdir()
    subprocess.run(["tar", "-cf", "w.tar", "weights"], cwd=tmp_path, check=True)
    given = {
        "contigs": [str(prediction["contigs"])],
        "classifier": str(prediction["classifier"]),
        "dna_model": str(prediction["dna"]),
        "protein_model": PROTEIN_MODEL,
        "weights": [str(tmp_path / "w.tar")],
        "gpus": "none",
    }
    (tmp_path / "in.json").write_text(json.dumps(given))
    words = [tool, "run", PREDICT_WDL, "--input", tmp_path / "in.json", "--dir", tmp_path / "."]
    outputs = json.loads(run(words, environment, tmp_path).stdout)["outputs"]
    [calls] = outputs["predict.calls"]
    assert len(Path(calls).read_text().splitlines()) == 11
