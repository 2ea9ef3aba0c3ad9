"""A stand-in for Nextflow: the script of a process, with its values, in a folder of a task."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

PIPELINE = ROOT / "deploy" / "nextflow" / "embed.nf"

#: What Nextflow sets a backslash before, in a path that a script names; no quotes are around it.
SPECIAL = re.compile(r"""['"\\ ()!&|<>`:]""")


def body_of(process: str, pipeline: Path = PIPELINE) -> str:
    [body] = re.findall(rf"^process {process} \{{\n(.*?)^\}}", pipeline.read_text(), re.M | re.S)
    return str(body)


def staged(process: str, inputs: Mapping[str, Path]) -> dict[str, str]:
    """Return the name that each file has in a task's folder: its own, or that of ``stageAs``."""
    names = {}
    for variable, path in inputs.items():
        [name] = re.findall(
            rf"path[ (]{variable}(?:, stageAs: '([^']+)')?\)?$", body_of(process), re.M
        )
        names[variable] = name or path.name
    return names


def script_of(
    process: str,
    values: Mapping[str, str],
    names: Mapping[str, str],
    pipeline: Path = PIPELINE,
) -> str:
    """Return the script of a process as Nextflow writes it into ``.command.sh``.

    Args:
        values: of the expressions that the script names as ``${expression}``.
        names: of files; ``${variable}`` is escaped, ``${variable.name}`` is not.
    """
    [script] = re.findall(r'script:\n    """\n(.*?)    """', body_of(process, pipeline), re.S)
    values = {
        **values,
        **{variable: SPECIAL.sub(r"\\\g<0>", name) for variable, name in names.items()},
        **{f"{variable}.name": name for variable, name in names.items()},
    }
    text = re.sub(r"(?<!\\)\$\{([^}]+)\}", lambda found: values[found[1]], script)
    return "#!/bin/bash -ue\n" + text.replace("\\$", "$").replace("\\\\", "\\")


def task(folder: Path, process: str, values: Mapping[str, str], inputs: Mapping[str, Path]) -> Path:
    """Make a task's folder, with links to its inputs; return its script.

    Args:
        inputs: the path of each input of files, by its variable.
    """
    folder.mkdir(parents=True)
    names = staged(process, inputs)
    for variable, path in inputs.items():
        (folder / names[variable]).symlink_to(path)
    script = folder / ".command.sh"
    script.write_text(script_of(process, values, names))
    return script
