"""CONTRIBUTING.md says how long each target takes, the Makefile which packages it needs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

MAKEFILE = (ROOT / "Makefile").read_text()

#: What each row says of a target.
ROWS = dict(
    re.findall(r"^\| `make (\w+)` \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
)

#: Debian's packages that the Makefile names.
PACKAGES = {"docker-registry", "prometheus", "bubblewrap", "redis-server", "redis-tools", "tini"}
PACKAGES |= {"buildah", "crun", "uidmap", "debootstrap", "chromium", "slurmctld", "munge"}


def test_every_target_that_tests_has_a_row():
    [targets] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert set(targets.split()) - ROWS.keys() == {"demo", "fuzz", "clean"}


def test_packages_are_named_in_the_makefile_alone():
    assert {name for name in PACKAGES if not re.search(rf"\b{name}\b", MAKEFILE)} == set()
    for target in ("images", "chart", "ops"):
        assert "the Debian packages that the `Makefile` names" in ROWS[target]
        assert {name for name in PACKAGES if re.search(rf"\b{name}\b", ROWS[target])} == set()


def test_how_long_a_target_takes_is_in_the_table_alone():
    comments = "".join(re.findall(r"^#.*\n", MAKEFILE.replace("for 20 minutes", ""), re.M))
    assert "minutes" not in comments
