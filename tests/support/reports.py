"""Reports as a page has them, and names that a page must not take for HTML."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

#: A name that would run a script if a page took it for HTML.
HOSTILE = "</script><img/src=x/onerror=document.title='taken'>"


def packed_in(page: str, element: str) -> str:
    """Return the text that a page has packed in one of its elements."""
    found = re.search(rf'<script type="text/plain" id="{element}">([^<]*)</script>', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1])).decode()


def report_in(page: str) -> dict[str, Any]:
    """Return the report in a page, its arrays as NumPy's."""

    def revived(value: dict[str, Any]) -> Any:
        if value.keys() != {"type", "base64"}:
            return value
        dtype = value["type"].removesuffix("Array").lower()
        return np.frombuffer(base64.b64decode(value["base64"]), dtype)

    return json.loads(packed_in(page, "data"), object_hook=revived)


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
