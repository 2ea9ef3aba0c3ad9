"""The page: one file, which loads nothing, and in which no name becomes HTML."""

import dataclasses

import numpy as np
import pytest

from producer.report.contents import Colour, Histogram, Points, Projection, Report
from producer.report.page import page_of, plotly
from tests.support.reports import HOSTILE, Tags, packed_in, report_in


def report_of(name: str = "a") -> Report:
    return Report(
        subject=name,
        job=name,
        facts=(("model", name),),
        cards=(("1", name),),
        warnings=(name,),
        notes=(name,),
        letters="letters",
        lengths=Histogram(np.array([0, 10, 20]), np.array([1, 2])),
        precisions=((name, 3),),
        points=Points(
            ids=[name, "b", "é"],
            headers=[f"{name} of {name}", "b", "c"],
            lengths=np.array([1, 2, 3], np.int32),
            projections=(Projection(name, np.ones((3, 2), np.float32), (name, name)),),
            colours=(
                Colour(name, np.array([1, np.nan, 3], np.float32)),
                Colour(name, np.zeros(3, np.int32), (name,)),
            ),
        ),
        map_notes=(name,),
        version="1",
    )


def test_the_page_has_the_report():
    found = report_in(page_of(report_of(), "library"))
    assert found["facts"] == [["model", "a"]]
    assert found["points"]["ids"] == ["a", "b", "é"]
    assert found["points"]["projections"][0]["coordinates"].tolist() == [1] * 6
    number, text = found["points"]["colours"]
    np.testing.assert_array_equal(number["values"], np.float32([1, np.nan, 3]))
    assert (number["names"], text["names"]) == (None, ["a"])
    assert found["lengths"]["edges"].tolist() == [0, 10, 20]
    assert found.keys() == {field.name for field in dataclasses.fields(Report)}


def test_no_name_becomes_html():
    harmless, hostile = (page_of(report_of(name), "library") for name in ("a", HOSTILE))
    assert HOSTILE not in hostile
    assert [tag for tag, _ in Tags(hostile).found] == [tag for tag, _ in Tags(harmless).found]


def test_the_page_names_nothing_to_load():
    page = page_of(report_of(), "library")
    tags = Tags(page).found
    assert not [attributes for _, attributes in tags if {"src", "href"} & attributes.keys()]
    [policy] = [a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    assert "url(" not in page


def test_equal_reports_are_equal_pages():
    assert page_of(report_of(), "library") == page_of(report_of(), "library")


def test_the_library_is_in_the_page_with_its_licence():
    pytest.importorskip("plotly", reason="needs the extra report")
    page = page_of(report_of(), plotly())
    assert "Licensed under the MIT license" in packed_in(page, "library")
    assert len(page) < 2_500_000
