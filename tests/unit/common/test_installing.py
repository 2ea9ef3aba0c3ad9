"""Installing what is missing: words that work from where this package came from."""

import json
import shlex
import subprocess
import sys
from typing import Any

import pytest
from packaging.requirements import Requirement

from common.installing import ROOT, how_to_install, words_for

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def record(url: str, **more: Any) -> str:
    """Return the record that pip keeps of a package from a URL."""
    return json.dumps({"url": url, **more})


@pytest.mark.parametrize(
    ("direct_url", "url"),
    [
        (None, None),
        (record("https://h/a.whl", archive_info={}), "https://h/a.whl"),
        (
            record("https://h/v.git", vcs_info={"vcs": "git", "commit_id": COMMIT}),
            f"git+https://h/v.git@{COMMIT}",
        ),
    ],
    ids=["index", "wheel", "git"],
)
def test_a_package_that_was_downloaded_is_downloaded_again_with_the_extra(
    tmp_path, direct_url, url
):
    (word,) = shlex.split(words_for("worker", direct_url, tmp_path))
    needed = Requirement(word)
    assert (needed.name, needed.extras, needed.url) == ("virnucpro-fleet", {"worker"}, url)


def test_a_copy_of_a_checkout_is_installed_from_there(tmp_path):
    checkout = tmp_path / "my project"
    checkout.mkdir()
    direct_url = record(checkout.as_uri(), dir_info={})
    assert words_for("local", direct_url, tmp_path).startswith("'.[local]' in a checkout")
    (checkout / "pyproject.toml").touch()
    assert shlex.split(words_for("local", direct_url, tmp_path)) == [f"{checkout}[local]"]


def test_from_a_checkout_it_is_the_checkout_that_is_installed():
    assert how_to_install("worker") == f"pip install -e {shlex.quote(f'{ROOT}[worker]')}"


def test_a_worker_without_pytorch_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; from workers.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "start", "--model", "esm2_t6_8M_UR50D"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert how_to_install("worker") in done.stderr
