"""Chromium without a window: what a page has once its scripts have run, and a picture of it."""

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

#: The names of the program, as distributions package it.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

#: Milliseconds of a page's own time in which its scripts run.
SCRIPT_MILLISECONDS = 10_000

#: Seconds that the program may take.
SECONDS = 120


def chromium() -> str:
    """Return the program's path; skip the test that asks for it if there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip(f"needs one of {', '.join(PROGRAMS)}")
    return found


def visit(url: str, folder: Path, *options: str) -> str:
    """Visit a page with a profile in a folder; return what the program prints."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    profile = f"--user-data-dir={folder / 'profile'}"
    budget = f"--virtual-time-budget={SCRIPT_MILLISECONDS}"
    done = subprocess.run(
        [chromium(), *quiet, profile, budget, *options, url],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout


def page_at(url: str, folder: Path) -> str:
    """Return the HTML of a page once its scripts have run."""
    return visit(url, folder, "--dump-dom")


def picture_of(url: str, folder: Path, file: Path, *, width: int, height: int) -> None:
    """Write a picture of a page to a PNG file."""
    visit(
        url, folder, f"--screenshot={file}", f"--window-size={width},{height}", "--hide-scrollbars"
    )


def rows_of(page: str) -> list[list[str]]:
    """Return the texts of the cells of all rows of the tables in a page."""
    return [
        [cell_text(cell) for cell in re.findall(r"<td\b[^>]*>(.*?)</td>", row, re.DOTALL)]
        for row in re.findall(r"<tr\b[^>]*>(.*?)</tr>", page, re.DOTALL)
    ]


def cell_text(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html)).strip()
