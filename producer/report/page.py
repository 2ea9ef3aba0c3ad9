"""A report as one page of HTML that needs nothing else: no network, no other file."""

import base64
import gzip
import html
import json
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from common.errors import UserError
from common.installing import how_to_install
from producer.report.contents import Report

#: The parts of the page, in the order in which a browser reads them.
STYLES, SCRIPTS = ("page.css",), ("unpack.js", "parts.js", "charts.js", "map.js", "page.js")

#: How a type of numbers is called in the page.
TYPES = {"float32": "Float32Array", "float64": "Float64Array", "int32": "Int32Array"}


def plotly() -> str:
    """Return the source of plotly.js, which the package plotly brings.

    Raises:
        UserError: it is not installed.
    """
    try:
        source: str = import_module("plotly.offline").get_plotlyjs()
    except ImportError as error:
        raise UserError(
            f"plotly is not installed, which draws a report: {how_to_install('report')}"
        ) from error
    return source


def job_mark(job: str) -> str:
    """Return what the beginning of a report of a job contains, and of no other."""
    return f'<meta name="virnucpro-report" content="{html.escape(job)}">'


def page_of(report: Report, library: str) -> str:
    """Return the page.

    What a user named (ids, headers, sources, columns) is in it as packed data alone, and becomes
    text there: nothing of it is read as HTML.

    Args:
        library: the source of plotly.js.
    """
    folder = files("producer.report") / "html"
    parts = {
        "title": html.escape(f"Report of {report.subject}"),
        "mark": job_mark(report.job or report.subject),
        "style": "\n".join((folder / name).read_text("utf-8") for name in STYLES),
        "script": "\n".join((folder / name).read_text("utf-8") for name in SCRIPTS),
        "data": packed(json.dumps(plain(report), allow_nan=False, separators=(",", ":"))),
        "library": packed(library),
    }
    return Template((folder / "page.html").read_text("utf-8")).substitute(parts)


def packed(text: str) -> str:
    """Return a text compressed, in letters that HTML gives no meaning to."""
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()


def plain(value: Any) -> Any:
    """Return dataclasses as JSON has them; arrays as bytes in base64, with their type."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        values = value.astype(np.float64) if value.dtype == np.int64 else value
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        return {"type": TYPES[values.dtype.name], "base64": base64.b64encode(data).decode()}
    if isinstance(value, list | tuple):
        return value if all(type(item) is str for item in value) else list(map(plain, value))
    return value
