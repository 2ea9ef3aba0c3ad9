"""Predictions on this machine: odd inputs, options, and what is refused before any work."""

import gzip
import json
import random
from pathlib import Path

import pandas as pd
import pytest

from tests.support.contigs import WITHOUT_FRAMES, classifier_for, coding, write_contigs
from tests.support.dnabert import random_checkpoint, save_checkpoint
from tests.support.fixtures import TINY
from tests.support.overflow_dna import DNA_SPEC
from tests.support.processes import clean_environment, run_producer

FILES = {
    *("prediction_results.txt", "prediction_results_highestscore.csv", "contigs.tsv"),
    *("frames.faa", "frames.fna", "report.html", "prediction.json"),
}


@pytest.fixture(scope="module")
def options(tiny, tmp_path_factory) -> list[object]:
    folder = tmp_path_factory.mktemp("models")
    dna = save_checkpoint(DNA_SPEC, random_checkpoint(DNA_SPEC), folder / "dnabert")
    classifier = classifier_for(folder / "c.safetensors", DNA_SPEC.dim + TINY.dim, chunk=300)
    models = ["--dna-model", dna, "--protein-model", tiny]
    return ["--classifier", classifier, *models, "--local", "--gpus", "none"]


def predict(folder: Path, *words: object):
    return run_producer("predict", *words, cwd=folder, environment=clean_environment())


def test_without_any_frame_there_are_files_with_headers_alone(options, tmp_path):
    (tmp_path / "stops.fna").write_text(f">a\n{WITHOUT_FRAMES * 60}\n>b\n{WITHOUT_FRAMES}\n")
    done = predict(tmp_path, "stops.fna", *options, "-o", "calls")
    assert done.returncode == 0, done.stderr
    assert "No call: 2 contigs" in done.stderr
    assert {path.name for path in (tmp_path / "calls").iterdir()} == FILES
    results = (tmp_path / "calls" / "prediction_results.txt").read_text()
    assert results == "Sequence_ID\tPrediction\tscore1\tscore2\n"
    contigs = pd.read_csv(tmp_path / "calls" / "contigs.tsv", sep="\t", keep_default_na=False)
    assert contigs["call"].tolist() == ["none", "none"]
    assert contigs["chunks_without_frame"].tolist() == [3, 1]


def test_reads_of_one_name_are_kept_apart_and_short_ones_warned_of(options, tmp_path):
    draw = random.Random(1)
    reads = [coding(150, draw) for _ in range(6)]
    with gzip.open(tmp_path / "reads.fastq.gz", "wt") as file:
        file.writelines(f"@r{n // 2}\n{read}\n+\n{'I' * 150}\n" for n, read in enumerate(reads))
    done = predict(tmp_path, "reads.fastq.gz", *options, "-o", "calls", "--scores", "broad")
    assert done.returncode == 0, done.stderr
    assert "3 contigs with the name of an earlier one" in done.stderr
    assert "accuracy falls from 0.90 to 0.53 on reads of 150 bases" in done.stderr
    contigs = pd.read_csv(tmp_path / "calls" / "contigs.tsv", sep="\t")
    assert contigs["ID"].tolist() == ["r0", "r0", "r1", "r1", "r2", "r2"]
    assert (contigs["n_chunks"] == 1).all()
    highest = pd.read_csv(tmp_path / "calls" / "prediction_results_highestscore.csv", sep="\t")
    assert list(highest) == ["Modified_ID", "Is_Virus", "max_score_0", "max_score_1"]
    assert len(highest) == 6


def test_groups_features_a_comparison_and_an_earlier_prediction(options, tmp_path):
    draw = random.Random(2)
    text = "".join(f">NODE_{n // 2}_{n}\n{coding(700, draw)}\n" for n in range(6))
    (tmp_path / "c.fna").write_text(text)
    more = ("--group", r"(NODE_\d+)", "--features", "pt", "--compare", "fp32")
    done = predict(tmp_path, "c.fna", *options, "-o", "calls", *more)
    assert done.returncode == 0, done.stderr
    assert "Compared with FP32: 0 of " in done.stderr
    contigs = pd.read_csv(tmp_path / "calls" / "contigs.tsv", sep="\t")
    assert contigs["ID"].tolist() == ["NODE_0", "NODE_1", "NODE_2"]
    assert contigs["length"].tolist() == [1400] * 3
    names = {path.name for path in (tmp_path / "pt").iterdir()}
    assert names == {f"output_1_{kind}.pt" for kind in ("DNABERT_S", "ESM", "merged")}
    record = json.loads((tmp_path / "calls" / "prediction.json").read_text())
    assert record["compared"]["frames"] == record["frames"]["frames"] > 0
    page = (tmp_path / "calls" / "report.html").read_text()
    assert "Virus calls of c.fna" in page
    assert "NODE_2" in page
    assert "<script" not in page

    again = predict(tmp_path, "c.fna", *options, "-o", "calls")  # an earlier one is replaced
    assert again.returncode == 0, again.stderr
    assert {path.name for path in (tmp_path / "calls").iterdir()} == FILES
    assert len(pd.read_csv(tmp_path / "calls" / "contigs.tsv", sep="\t")) == 6


def test_names_that_mean_something_in_html_are_text_in_the_report(options, tmp_path):
    (tmp_path / "c.fna").write_text(f"><b>x</b>&\n{coding(300, random.Random(3))}\n")
    done = predict(tmp_path, "c.fna", *options, "-o", "calls")
    assert done.returncode == 0, done.stderr
    assert "&lt;b&gt;x&lt;/b&gt;&amp;" in (tmp_path / "calls" / "report.html").read_text()


def test_what_is_wrong_is_said_before_any_work(options, tmp_path, tiny):
    write_contigs(tmp_path / "c.fna", 3)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()

    def refusal(*words: object, given: list[object] = options) -> str:
        done = predict(tmp_path, "c.fna", *given, *words)
        assert done.returncode == 2, done.stderr
        assert "Loading the model" not in done.stderr
        return done.stderr

    assert "was trained on chunks of 300 bases" in refusal("-o", "calls", "--chunk", 500)
    assert "other has other files, such as mine.txt" in refusal("-o", "other")
    assert "c.fna is a file: name a folder" in refusal("-o", "c.fna")
    assert "no regular expression" in refusal("-o", "calls", "--group", "(")
    assert "Unknown option: --modle" in refusal("-o", "calls", "--modle", "x")
    nowhere = classifier_for(tmp_path / "no_length.safetensors", DNA_SPEC.dim + TINY.dim)
    unknown = ["--classifier", nowhere, *options[2:]]
    assert "give --chunk 300 or --chunk 500" in refusal("-o", "calls", given=unknown)
    wide = classifier_for(tmp_path / "wide.safetensors", 1000, chunk=500)
    named = ["--classifier", wide, "--protein-model", "random:esm2_t6_8M_UR50D", "--local"]
    width = refusal("-o", "calls", given=[*named, "--dna-model", "random:dnabert_s"])
    assert "The classifier takes 1,000 numbers for a frame, and these models give 1,088" in width
    assert "this is no model of dna" in refusal(
        "-o", "calls", given=[*named, "--dna-model", "esm2_t6_8M_UR50D"]
    )
    assert not (tmp_path / "calls").exists()


# --- translate, train-classifier ----------------------------------------------------------------


def test_translate_writes_what_predict_embeds_and_what_is_left_out(tmp_path):
    write_contigs(tmp_path / "c.fna", 20)
    words = ("-o", "f.faa", "--dna", "f.fna", "--left-out", "out.tsv")
    done = run_producer("translate", "c.fna", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    headers = [
        [line for line in (tmp_path / name).read_text().splitlines() if line.startswith(">")]
        for name in ("f.faa", "f.fna")
    ]
    assert headers[0] == headers[1] != []
    left_out = pd.read_csv(tmp_path / "out.tsv", sep="\t")
    assert (left_out["chunks_without_frame"] > 0).all()
    assert 0 < len(left_out) < 20
    shown = run_producer("translate", "c.fna", "-o", "-", cwd=tmp_path)
    assert shown.stdout == (tmp_path / "f.faa").read_text()
    again = run_producer("translate", "c.fna", *words, cwd=tmp_path)
    assert again.returncode == 2
    assert "f.faa exists: name another file, or replace it with --overwrite" in again.stderr
    none = run_producer("translate", "--sequence", WITHOUT_FRAMES, "-o", "none.faa", cwd=tmp_path)
    assert none.returncode == 0
    assert "No contig has a frame" in none.stderr
    assert (tmp_path / "none.faa").read_text() == ""


def test_a_classifier_of_one_class_is_refused_with_what_is_needed(options, tmp_path):
    (tmp_path / "v.fna").write_text(f">v\n{coding(600, random.Random(1))}\n")
    write_contigs(tmp_path / "o.fna", 20)
    done = run_producer(
        *("train-classifier", "--positive", "v.fna", "--negative", "o.fna", "-o", "m.safetensors"),
        *("--dna-model", options[3], "--model", options[5], "--local", "--gpus", "none"),
        cwd=tmp_path,
        environment=clean_environment(),
    )
    assert done.returncode == 2
    assert "Class virus has 1 contig to train on. Give at least 2 of each class" in done.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_an_empty_contig_is_an_error_with_its_line_or_left_out(tmp_path):
    (tmp_path / "c.fna").write_text(f">a\n{coding(300, random.Random(1))}\n>empty\n>b\nACGT\n")
    refused = run_producer("translate", "c.fna", "-o", "f.faa", cwd=tmp_path)
    assert refused.returncode == 2
    assert "c.fna, line 3: record 2 ('empty') has no sequence." in refused.stderr
    assert not (tmp_path / "f.faa").exists()
    words = ("c.fna", "-o", "f.faa", "--empty", "skip")
    done = run_producer("translate", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Translated 2 contigs" in done.stderr
