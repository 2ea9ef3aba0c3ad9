"""Inputs of users: each kind in ``tests/cases`` is embedded as it should be, or refused."""

import shutil
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import esm
import numpy as np
import pytest
import torch

from common.model_specs import DNABERT_S, ModelSpec
from producer.fleet.fleet import Fleet as FleetOfPython
from tests.cases.case import without_library
from tests.support.dnabert import Weights, random_checkpoint, reference, save_checkpoint
from tests.support.processes import Fleet, running_fleet
from tests.support.results import oracle_means
from workers.engine.windows import windows
from workers.models.dnabert_s.tokenizer import DNATokenizer

FOLDER = Path(__file__).parents[1] / "cases"
CASES: list[dict[str, Any]] = tomllib.loads((FOLDER / "cases.toml").read_text())["case"]
REFUSED = [case for case in CASES if "message" in case]
EMBEDDED = [case for case in CASES if "message" not in case]

DNA_SPEC = ModelSpec(name="small_dna", layers=2, dim=64, heads=4, family=DNABERT_S)


@pytest.fixture(scope="module")
def one_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A broker and a folder as the store, for all cases."""
    folder = tmp_path_factory.mktemp("fleet")
    with running_fleet(folder, f"file://{folder}/store") as running:
        yield running


@pytest.fixture(scope="module")
def dna_weights() -> Weights:
    return random_checkpoint(DNA_SPEC)


@pytest.fixture(scope="module")
def models(
    tiny: Path, dna_weights: Weights, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights") / "dnabert"
    return {"protein": tiny, "dna": save_checkpoint(DNA_SPEC, dna_weights, folder)}


def submit(fleet: Fleet, models: dict[str, Path], case: dict[str, Any], folder: Path) -> Any:
    """Run ``producer submit`` on the case's file, under the case's name, in a folder."""
    name = case.get("name", case["file"])
    shutil.copy(FOLDER / case["file"], folder / name)
    model = models[case.get("model", "protein")]
    return fleet.producer("submit", name, "--model", model, *case.get("options", []), cwd=folder)


def written_out(texts: Sequence[str | dict[str, Any]]) -> list[str]:
    """Return texts, of which the long ones are a part that is repeated up to a length."""
    return [
        text if isinstance(text, str) else (text["repeat"] * text["length"])[: text["length"]]
        for text in texts
    ]


def dna_mean(weights: Weights, contig: str, window: int) -> Any:
    """The mean over all tokens, [CLS] and [SEP] too, of all windows."""
    hidden = [
        reference(weights, torch.from_numpy(tokens.ids), DNA_SPEC.heads)[-1]
        for start, end in windows(len(contig), window, window // 10)
        for tokens in [DNATokenizer.own()([contig[start:end]])]
    ]
    return torch.cat(hidden).mean(0).numpy()


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["kind"].replace(" ", "_"))
def test_a_bad_input_is_refused_and_named(one_fleet, models, tmp_path, case):
    done = submit(one_fleet, models, case, tmp_path)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert without_library(done.stderr).strip().endswith(case["message"]), done.stderr
    assert done.stderr.replace("\n", "").isprintable()
    assert not one_fleet.ledger.jobs.names() or done.stdout == ""


def test_every_other_input_is_embedded_as_it_should_be(
    one_fleet: Fleet,
    models: dict[str, Path],
    oracle: esm.ESM2,
    dna_weights: Weights,
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        for kind, path in models.items():
            (tmp_path / kind).mkdir()
            stack.enter_context(one_fleet.workers(path, tmp_path / kind))
        submitted = []
        for number, case in enumerate(EMBEDDED):
            (tmp_path / str(number)).mkdir()
            submitted.append(submit(one_fleet, models, case, tmp_path / str(number)))
        wrong = {}
        python = FleetOfPython(broker=one_fleet.broker_url, store=one_fleet.store_url)
        for case, done in zip(EMBEDDED, submitted, strict=True):
            try:
                assert done.returncode == 0, done.stderr
                assert [text for text in case.get("notes", []) if text not in done.stderr] == []
                job = python.job(done.stdout.strip())
                job.wait(timeout=120, progress=False)
                check(case, job.embeddings(), oracle, dna_weights)
            except Exception as error:
                wrong[case["kind"]] = str(error)
    assert wrong == {}


def check(case: dict[str, Any], found: Any, oracle: esm.ESM2, dna_weights: Weights) -> None:
    """Compare embeddings with the reference's of the sequences that they should be of."""
    sequences = written_out(case["sequences"])
    assert found.rows.tolist() == case.get("rows", list(range(len(sequences))))
    assert list(found.lengths) == [len(sequence) for sequence in sequences]
    if "ids" in case:
        assert found.ids == written_out(case["ids"])
    identical = len(sequences) - len(set(sequences))
    expected = case.get("attributes", {}) | ({"records_identical": identical} if identical else {})
    assert {n: v for n, v in found.attributes.items() if n.startswith("records_")} == {
        n: v for n, v in expected.items() if n.startswith("records_")
    }
    assert found.attributes["molecule"] == case.get("molecule", case.get("model", "protein"))
    assert found.attributes.get("warning", "").startswith(expected.get("warning", ""))
    if case.get("model") == "dna":
        window = case.get("windows", 10_000)
        means = np.stack([dna_mean(dna_weights, text, window) for text in sequences])
    else:
        means = oracle_means(oracle, sequences, 2)
    assert np.abs(found.mean - means).max() < 1e-4
