"""The public package: every name is there, typed, and imported no earlier than it is used."""

import ast
import subprocess
import sys
from importlib import import_module

import pytest

import virnucpro_fleet as vf
from tests.conftest import ROOT
from tests.unit.test_imports import modules_after

SOURCE = ast.parse((ROOT / "virnucpro_fleet" / "__init__.py").read_text())


def imported_for_types() -> dict[str, str]:
    """Each name that type checkers see, with its module."""
    (branch,) = [node for node in SOURCE.body if isinstance(node, ast.If)]
    return {
        alias.name: node.module
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_every_name_is_the_object_of_its_module():
    for name, module in vf.MODULES.items():
        assert getattr(vf, name) is getattr(import_module(module), name)
    assert dir(vf) == sorted(vf.__all__)


def test_type_checkers_see_the_names_that_python_does():
    assert imported_for_types() == vf.MODULES
    assert sorted(vf.__all__) == sorted(vf.MODULES)
    for package in ("virnucpro_fleet", "common", "producer", "workers"):
        assert (ROOT / package / "py.typed").is_file()


def test_the_package_reexports_and_does_nothing_else():
    functions = [n.name for n in ast.walk(SOURCE) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    assert functions == ["__getattr__", "__dir__"]
    assert [path.name for path in (ROOT / "virnucpro_fleet").glob("*.py")] == ["__init__.py"]


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Fleets'"):
        _ = vf.Fleets


@pytest.mark.parametrize("name", ["Fleet", "Job", "load", "VirnucproError"])
def test_what_needs_no_pytorch_loads_none(name):
    loaded = modules_after(f"import virnucpro_fleet; virnucpro_fleet.{name}")
    assert not loaded & {"torch", "workers", "boto3", "rich", "cyclopts"}


def test_importing_the_package_loads_none_of_it():
    loaded = modules_after("import virnucpro_fleet")
    assert not loaded & {"common", "producer", "workers", "numpy", "redis"}


def test_without_pytorch_the_message_names_the_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "workers.embedder", None)
    monkeypatch.delitem(vars(vf), "embed", raising=False)
    with pytest.raises(ImportError, match=r"embed needs .*: pip install .*\[worker\]"):
        _ = vf.embed


def test_without_pytorch_a_star_imports_all_that_needs_none():
    code = (
        "import sys; sys.modules['torch'] = None; from virnucpro_fleet import *;"
        "print('Fleet' in dir(), 'load' in dir(), 'embed' in dir())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_every_error_of_the_package_has_one_base():
    errors = [name for name in vf.__all__ if name.endswith("Error")]
    assert len(errors) > 5
    assert all(issubclass(getattr(vf, name), vf.VirnucproError) for name in errors)
