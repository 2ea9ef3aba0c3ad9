"""A reliability diagram has bins by a slow definition, and its picture shows them."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.virnucpro.calibration import (
    HEIGHT,
    LEFT,
    SIDE,
    STYLE,
    TOP,
    WIDTH,
    calibration_svg,
    expected_calibration_error,
    reliability,
    short,
)

SVG = "{http://www.w3.org/2000/svg}"

scored = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(0, 1)), min_size=2, max_size=60
).filter(lambda rows: {label for _, label in rows} == {0, 1})


@given(scored)
def test_bins_are_those_of_a_slow_definition(rows):
    scores = np.array([thousandths / 1000 for thousandths, _ in rows])
    labels = np.array([label for _, label in rows])
    of_class = [int((labels == 0).sum()), int((labels == 1).sum())]
    error = 0.0
    for place, found in enumerate(reliability(scores, labels)):
        inside = [
            (thousandths / 1000, label, 1 / of_class[label] / 2)
            for thousandths, label in rows
            if min(thousandths // 100, 9) == place
        ]
        assert found.others == sum(not label for _, label, _ in inside)
        assert found.virus == sum(label for _, label, _ in inside)
        total = sum(weight for *_, weight in inside)
        assert found.weight == pytest.approx(total)
        if not inside:
            assert found.mean_score is None
            assert found.virus_share is None
            continue
        mean = sum(weight * score for score, _, weight in inside) / total
        share = sum(weight * label for _, label, weight in inside) / total
        assert found.mean_score == pytest.approx(mean)
        assert found.virus_share == pytest.approx(share)
        error += total * abs(mean - share)
    found_error = expected_calibration_error(reliability(scores, labels))
    assert found_error == pytest.approx(error, abs=1e-12)


def test_scores_that_are_probabilities_have_a_small_error():
    draw = np.random.default_rng(0)
    scores = draw.random(200_000)
    labels = (draw.random(200_000) < scores).astype(np.int64)
    # Of a bin's share the standard error is at most 0.5 / sqrt(20,000), or 0.0035.
    assert expected_calibration_error(reliability(scores, labels)) < 0.0035
    overconfident = np.where(scores > 0.5, 0.95, 0.05)
    assert expected_calibration_error(reliability(overconfident, labels)) > 0.15


def test_a_rare_class_does_not_look_uncalibrated_for_being_rare():
    draw = np.random.default_rng(1)
    scores = draw.random(400_000)
    labels = (draw.random(400_000) < scores).astype(np.int64)
    kept = (labels == 0) | (draw.random(400_000) < 0.05)
    assert expected_calibration_error(reliability(scores[kept], labels[kept])) < 0.02


@pytest.fixture
def picture() -> ElementTree.Element:
    scores = np.array([0.05, 0.05, 0.15, 0.95, 1.0, 0.95])
    labels = np.array([0, 0, 1, 1, 1, 0])
    return ElementTree.fromstring(calibration_svg(reliability(scores, labels), 0.125))


def test_the_picture_has_a_point_for_each_bin_with_frames(picture):
    points = picture.findall(f"{SVG}circle")
    assert len(points) == 3
    x, y = float(points[1].attrib["cx"]), float(points[1].attrib["cy"])
    assert (x - LEFT) / SIDE == pytest.approx(0.15, abs=1e-3)
    assert (TOP + SIDE - y) / SIDE == pytest.approx(1, abs=1e-3)


def test_the_picture_names_axes_figures_and_counts(picture):
    words = [each.text for each in picture.iter(f"{SVG}text")]
    assert {"Share of viruses", "Virus score", "Frames", "others", "virus"} <= set(words)
    assert "6 held-out frames, both classes weighted alike" in words
    assert any("Brier score 0.1250" in each for each in words)
    counts = [each.text for each in picture.iter(f"{SVG}text") if "small" in each.attrib["class"]]
    assert counts == ["2", "1", "0", "0", "0", "0", "0", "0", "0", "3"]


def test_the_bars_are_as_high_as_their_counts(picture):
    bars = [each for each in picture.findall(f"{SVG}rect") if each.find(f"{SVG}title") is not None]
    heights = {}
    for each in bars:
        count, name = each.find(f"{SVG}title").text.split()
        heights.setdefault((int(count), name), float(each.attrib["height"]))
    assert heights[2, "others"] == pytest.approx(2 * heights[1, "others"])
    assert heights[0, "virus"] == 0


def test_everything_is_inside_the_picture(picture):
    for each in picture.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(each.attrib.get(name, 0)) <= WIDTH
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(each.attrib.get(name, 0)) <= HEIGHT


def test_every_colour_but_those_shared_has_one_for_a_dark_ground():
    light, dark = STYLE.split("@media")
    coloured = set(re.findall(r"^([.\w]+) {.*#", light, re.M))
    replaced = {
        name.strip() for names in re.findall(r"^  (.+?) {", dark, re.M) for name in names.split(",")
    }
    assert coloured == replaced


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0"), (99_999, "99,999"), (100_000, "100k"), (999_499, "999k"), (999_500, "1.0M")],
)
def test_counts_are_short(count, expected):
    assert short(count) == expected
