"""The allowed imports, checked in the source, so that none hides in a function."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: The modules that each package, and everything below it, must not import.
FORBIDDEN = {
    "common": ["producer", "workers", "virnucpro_fleet", "tests", "torch", "cyclopts", "rich"],
    "producer": ["workers", "virnucpro_fleet", "tests", "torch"],
    "workers": ["producer", "virnucpro_fleet", "tests"],
    "workers/models": [
        *("celery", "kombu", "redis", "boto3", "botocore", "h5py"),
        *("common.store", "common.ledger", "common.wire", "common.job", "common.local"),
        *("workers.engine", "workers.batches", "workers.process", "workers.transport"),
        *("workers.cli", "workers.runtime", "workers.bench", "workers.validation"),
        "workers.embedder",
    ],
    "workers/embedder.py": [
        *("celery", "kombu", "redis", "boto3", "botocore"),
        *("common.store", "common.ledger", "common.wire", "common.local"),
    ],
}


def imported_by(path: Path) -> Iterator[str]:
    """Return every module, and every name of a module, that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import would escape this test"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_keeps_to_the_rules_of_the_house(package):
    place = ROOT / package
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files
    broken = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imported_by(path)
        if any(is_within(module, forbidden) for forbidden in FORBIDDEN[package])
    ]
    assert broken == []


@pytest.mark.parametrize("package", ["producer", "workers"])
def test_both_sides_stand_on_what_they_agree_on(package):
    modules = [m for path in (ROOT / package).rglob("*.py") for m in imported_by(path)]
    assert any(is_within(module, "common") for module in modules)


def modules_after(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after an import."""
    code = f"{statement}; import sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(answer.stdout.split())


def test_the_producer_starts_without_torch_and_without_a_worker():
    loaded = modules_after("import producer.cli.app")
    assert "producer.submission.submit" in loaded
    strangers = ("torch", "workers", "transformers", "esm", "celery.worker", "boto3")
    assert [m for m in loaded if any(is_within(m, stranger) for stranger in strangers)] == []


def test_the_models_can_be_used_without_the_fleet():
    loaded = modules_after("import workers.models.esm2, workers.models.loading")
    strangers = (
        "celery",
        "kombu",
        "redis",
        "boto3",
        "common.store",
        "common.ledger",
        "producer",
    )
    assert [m for m in loaded if any(is_within(m, stranger) for stranger in strangers)] == []


def test_a_model_is_loaded_without_the_compiler():
    """It takes seconds to import, and building a model on the meta device tends to import it."""
    load = "from workers.models.loading import load_model; import torch; "
    models = ("random:esm2_t6_8M_UR50D", "random:dnabert_s")
    calls = [f"load_model({model!r}, dtype=torch.float32)" for model in models]
    loaded = modules_after(load + "; ".join(calls))
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded
