"""The comparison of vectors, and the report's verdict in one line."""

from datetime import UTC, datetime

import numpy as np
import pytest

from common.rungs import Rung
from workers.validation.published.judge import Compared, Installation, compare
from workers.validation.published.report import print_report, verdict

FILE, SHA256 = "/weights of mine/model.safetensors", "a" * 64


def test_the_difference_is_relative_to_the_vector_and_the_largest_of_all():
    published = np.array([[3.0, 4.0], [30.0, 40.0]], np.float32)
    found = compare(np.add(published, [[0.3, -0.4], [0.3, 0.4]]), published, Rung.FP32, 0.101)
    assert found.difference == pytest.approx(0.1)
    assert found.cosine_min == pytest.approx(np.cos(np.arctan2(4, 3) - np.arctan2(3.6, 3.3)))
    assert found.passed
    assert not compare(published * 1.1, published, Rung.FP32, 0.099).passed


def test_a_vector_of_the_same_direction_and_another_norm_is_another_one():
    published = np.ones((1, 4), np.float32)
    found = compare(2 * published, published, Rung.FP16, 0.05)
    assert (found.cosine_min, found.difference, found.passed) == (pytest.approx(1), 1, False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_fails(value):
    published = np.ones((2, 4), np.float32)
    measured = published.copy()
    measured[1, 2] = value
    found = compare(measured, published, Rung.FP16, 0.05)
    assert (found.cosine_min, found.difference, found.passed) == (None, None, False)


def test_in_bf16_both_are_rounded_and_the_difference_may_be_larger():
    published = np.ones((1, 4), np.float32)
    for precision, allowed in ((Rung.FP32, 0.05), (Rung.FP16, 0.05), (Rung.BF16, 0.0707)):
        found = compare(1.06 * published, published, precision, 0.05)
        assert found.tolerance == pytest.approx(allowed, abs=1e-4)
        assert found.passed == (precision is Rung.BF16)


# --- the verdict --------------------------------------------------------------------------------


def installation(fp32: float | None, fp16: float | None, *, other: bool = False) -> Installation:
    """Return the result of two precisions with these differences."""

    def compared(precision: Rung, difference: float | None) -> Compared:
        return Compared(
            precision=precision,
            cosine_min=None if difference is None else 1 - difference**2 / 2,
            difference=difference,
            tolerance=0.05,
            passed=difference is not None and difference <= 0.05,
        )

    comparisons = (compared(Rung.FP32, fp32), compared(Rung.FP16, fp16))
    return Installation(
        model="/weights of mine",
        weights=None,
        fingerprint="0" * 16,
        device="NVIDIA H200",
        date=datetime.now(UTC),
        passed=all(each.passed for each in comparisons),
        published="esm2_t6_8M_UR50D",
        repository="facebook/esm2_t6_8M_UR50D",
        revision="1" * 40,
        sha256={FILE: SHA256},
        published_sha256={"model.safetensors": "b" * 64 if other else SHA256},
        other_files=(FILE,) if other else (),
        comparisons=comparisons,
        versions={"torch": "2.13.0"},
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            installation(0.01, 0.02),
            "PASS: this installation gives the numbers of the authors' code for esm2_t6_8M_UR50D: "
            "smallest cosine 0.999800, largest difference 2.00% (tolerance 5%), in fp16 on NVIDIA "
            "H200.",
        ),
        (installation(0.01, 0.02, other=True), "PASS: this installation gives the numbers"),
        (
            installation(0.5, 0.4),
            "FAIL: this installation does not give the numbers of the authors' code for "
            "esm2_t6_8M_UR50D: smallest cosine 0.875000, largest difference 50.00% (tolerance "
            "5%), in fp32 on NVIDIA H200. The weights are the published ones",
        ),
        (
            installation(0.01, None),
            "a vector is not finite, in fp16 on NVIDIA H200. In fp32 it does",
        ),
        (installation(0.01, 0.06), "In fp32 it does: worker validate without --published"),
        (
            installation(0.5, 0.4, other=True),
            "FAIL: these are other weights than the published ones of esm2_t6_8M_UR50D: smallest",
        ),
    ],
)
def test_the_verdict_is_one_line_with_the_figures_that_are_furthest_off(found, expected, capsys):
    assert expected in verdict(found)
    print_report(found, "https://example.org")
    assert capsys.readouterr().out.splitlines()[-1] == verdict(found)


def test_both_hashes_of_another_file_are_shown_with_how_to_see_them(capsys):
    print_report(installation(0.01, 0.02, other=True), "https://example.org")
    printed = capsys.readouterr().out
    assert f"model.safetensors: not a published file. sha256sum '{FILE}' gives" in printed
    assert SHA256 in printed
    assert f"{'b' * 64} model.safetensors" in printed


def test_a_published_file_is_said_to_be_one(capsys):
    print_report(installation(0.01, 0.02), "https://example.org")
    printed = capsys.readouterr().out
    assert "model.safetensors: published, by their SHA-256" in printed
    assert "sha256sum" not in printed
    assert "https://example.org" in printed
