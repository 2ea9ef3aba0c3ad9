"""Copy the files of this project that the chart needs into it: ``python -m tests.chart.copies``.

They are files of their own, not links: tools that fetch a chart from Git may drop links out of it.
"""

import sys
from pathlib import Path

from tests.support.chart import CHART, ROOT

FOLDER = CHART / "files"

#: Where each file of the chart is from.
SOURCES: dict[str, Path] = {
    path.name: path
    for path in (
        ROOT / "deploy" / "grafana" / "dashboard.json",
        ROOT / "deploy" / "prometheus" / "rules.yaml",
        ROOT / "deploy" / "redis" / "make-users.sh",
        ROOT / "deploy" / "redis" / "users.acl",
        ROOT / "examples" / "proteins.fasta",
    )
}


if __name__ == "__main__":
    for name, source in SOURCES.items():
        (FOLDER / name).write_bytes(source.read_bytes())
    sys.exit(0)
