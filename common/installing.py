"""How to install what is missing, from wherever this package was installed."""

import json
from pathlib import Path
from shlex import quote
from urllib.parse import urlsplit

NAME = "virnucpro-fleet"

#: The folder of this code, which is a checkout of the project unless the package was copied.
ROOT = Path(__file__).parents[1]


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra of this package, such as ``worker``."""
    return f"pip install {words_for(extra, origin(), ROOT)}"


def origin() -> str | None:
    """Return what pip recorded of where this package came from; None: an index, or not pip."""
    # Most processes never have to say how to install anything, and the import takes a while.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        return None


def words_for(extra: str, direct_url: str | None, root: Path) -> str:
    """Return the arguments with which ``pip install`` adds an extra.

    Args:
        direct_url: the record that pip keeps of a package that is not from an index (PEP 610).
        root: the folder of the code.
    """
    from urllib.request import url2pathname

    found = json.loads(direct_url) if direct_url else {}
    if (root / "pyproject.toml").is_file():
        return f"-e {quote(f'{root}[{extra}]')}"
    if "dir_info" in found:
        folder = Path(url2pathname(urlsplit(found["url"]).path))
        if (folder / "pyproject.toml").is_file():
            return quote(f"{folder}[{extra}]")
        return f"'.[{extra}]' in a checkout of {NAME}"  # as in an image, which has none
    if "vcs_info" in found:
        vcs = found["vcs_info"]
        return quote(f"{NAME}[{extra}] @ {vcs['vcs']}+{found['url']}@{vcs['commit_id']}")
    return quote(f"{NAME}[{extra}] @ {found['url']}" if found else f"{NAME}[{extra}]")
