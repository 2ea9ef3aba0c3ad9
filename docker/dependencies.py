"""Print what the project and some of its extras need, one requirement a line.

``python3 docker/dependencies.py EXTRA…``, beside ``pyproject.toml``. An image installs these in a
layer below the application's, which a change of the application leaves as it is.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def of_extra(project: dict[str, Any], extra: str) -> Iterator[str]:
    """Yield the requirements of an extra, and of the extras that it names."""
    for line in project["optional-dependencies"][extra]:
        if own := re.fullmatch(rf"{re.escape(project['name'])}\[([\w,-]+)\]", line):
            for named in own[1].split(","):
                yield from of_extra(project, named)
        else:
            yield line


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in sys.argv[1:]:
        lines += of_extra(project, extra)
    sys.stdout.write("\n".join(lines) + "\n")
