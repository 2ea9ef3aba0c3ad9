"""Only commands may print and exit. Everything else returns values and raises errors."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Folders and files that may print or exit: commands, displays, and worker processes.
ALLOWED = (
    *("producer/cli", "producer/terminal", "workers/cli"),
    *("workers/process", "workers/runtime/watchdog.py"),
    *("workers/bench/report.py", "workers/validation/report.py"),
)

FORBIDDEN = ("print", "sys.exit", "exit", "sys.stdout.write", "sys.stderr.write", "os._exit")


def calls(path: Path) -> Iterator[str]:
    """Return every call in a file that prints or ends the process, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN:
            yield f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node.func)}"


def may(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / allowed) for allowed in ALLOWED)


@pytest.mark.parametrize("package", ["common", "producer", "workers", "virnucpro_fleet"])
def test_only_commands_print_and_exit(package):
    files = [path for path in (ROOT / package).rglob("*.py") if not may(path)]
    assert [call for path in files for call in calls(path)] == []


def test_the_rule_sees_what_it_forbids():
    for folder in ("producer/cli", "producer/terminal"):
        assert [call for path in (ROOT / folder).rglob("*.py") for call in calls(path)]
