"""Links of pages lead to files and headings that are there, and the index names every page."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DOCS = ROOT / "docs"

PAGES = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "helm").rglob("*.md")]


def prose(page: Path) -> str:
    """Return a page without its blocks and spans of code, in which nothing is a link."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda span: "x" * len(span[0]), text)


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        repeated = found.count(name)
        found.append(name)
        if repeated:
            found.append(f"{name}-{repeated}")
    return set(found)


def broken(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    assert list(broken(page)) == []


def test_a_link_to_nothing_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`: c, d\n[1](#a-b-c-d) [2](#e) [3](other.md) [4](page.md#a-b-c-d) [5](page.md#f)\n"
        "```\n# no heading\n[6](not-a-link.md)\n```\n[7](#no-heading) [8](https://example.org/#g)\n"
    )
    assert list(broken(page)) == ["#e", "other.md", "page.md#f", "#no-heading"]


def test_the_index_names_every_page():
    named = re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text())
    assert sorted(named) == sorted(page.name for page in DOCS.glob("*.md") if page.stem != "README")


def rows(page: Path) -> dict[str, str]:
    """Return the lines of the table of features on a page, by feature."""
    text = page.read_text()
    table = text[text.index("| | this project |") :].partition("\n\n")[0]
    return {line.split("|")[1].strip(): line for line in table.splitlines()}


def test_the_readme_s_comparison_is_a_part_of_the_whole_one():
    short, whole = rows(ROOT / "README.md"), rows(DOCS / "comparison.md")
    assert len(short) > 15
    assert {line.count("|") for line in whole.values()} == {10}
    assert short.items() <= whole.items()
