"""A stand-in for Nextflow: the script of a process, with its values, in a folder of a task."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

PIPELINE = ROOT / "deploy" / "nextflow" / "embed.nf"


def script_of(process: str, values: Mapping[str, str]) -> str:
    """Return the script of a process as Nextflow writes it into ``.command.sh``.

    Args:
        values: of the expressions that the script names as ``${expression}``.
    """
    [body] = re.findall(
        rf'^process {process} \{{.*?script:\n    """\n(.*?)    """',
        PIPELINE.read_text(),
        re.M | re.S,
    )
    text = re.sub(r"(?<!\\)\$\{([^}]+)\}", lambda found: values[found[1]], body)
    return "#!/bin/bash -ue\n" + text.replace("\\$", "$")


def task(folder: Path, process: str, values: Mapping[str, str], inputs: Mapping[str, Path]) -> Path:
    """Make a task's folder, with links to its inputs; return its script."""
    folder.mkdir(parents=True)
    for name, path in inputs.items():
        (folder / name).symlink_to(path)
    script = folder / ".command.sh"
    script.write_text(script_of(process, values))
    return script
