"""Run the drill, say what it saw, and draw it.

``python -m tests.chart.drill docs/autoscaling.png`` needs Helm (``make chart`` gets it), redis-cli,
bwrap and nsenter. It takes three to five minutes.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.chart.drill.picture import draw
from tests.chart.drill.scenario import FULL, SHORT, Result, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, help="where to draw it")
    parser.add_argument("--short", action="store_true", help="run a smaller job")
    parser.add_argument("--records", type=Path, help="draw these records of an earlier drill")
    parser.add_argument("--folder", type=Path, help="keep logs and records here")
    options = parser.parse_args()
    if options.records is not None:
        draw(json.loads(options.records.read_text()), options.picture)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = run(folder, SHORT if options.short else FULL)
        document = result.records.document()
        (folder / "drill.json").write_text(json.dumps({**document, **summary(result)}, indent=1))
    draw(document, options.picture)
    sys.stdout.write(json.dumps(summary(result), indent=1) + "\n")


def summary(result: Result) -> dict[str, object]:
    return {
        "rows": result.rows,
        "ends": result.ends,
        "wrong": [asdict(one) for one in result.records.decisions if one.wrong],
        "looks": len(result.records.seen),
        "not_alive": len(result.not_alive),
        "untrue": [asdict(one) for one in result.untrue],
        "away": result.away,
    }


if __name__ == "__main__":
    main()
