"""Rungs: the precision of every step, and the variable that overrides everything."""

import logging

import pytest

from common.rungs import (
    NEXT_RUNG,
    Rung,
    first_rung,
    ladder,
    model_precision,
    served_steps,
    should_use_fp16,
)

CHOICES = ["auto", "fp16", "bf16", "fp32"]

disabling = pytest.mark.parametrize("value", ["1", "true", "yes", "TRUE", "Yes", " 1 "])


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("VIRNUCPRO_DISABLE_FP16", raising=False)


@disabling
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_variable_wins_over_every_setting(monkeypatch, value, choice, on_gpu):
    monkeypatch.setenv("VIRNUCPRO_DISABLE_FP16", value)
    assert not should_use_fp16()
    assert first_rung(choice) is Rung.FP32
    assert model_precision(choice, on_gpu=on_gpu) is Rung.FP32


@disabling
def test_the_variable_is_said_to_be_a_diagnostic_mode(monkeypatch, caplog, value):
    monkeypatch.setenv("VIRNUCPRO_DISABLE_FP16", value)
    with caplog.at_level(logging.WARNING):
        should_use_fp16()
    assert "diagnostic mode" in caplog.text


@pytest.mark.parametrize("value", [None, "", "0", "no", "false", "False", "off"])
def test_fp16_is_used_unless_the_variable_says_otherwise(monkeypatch, caplog, value):
    if value is not None:
        monkeypatch.setenv("VIRNUCPRO_DISABLE_FP16", value)
    assert should_use_fp16()
    assert first_rung("auto") is Rung.FP16
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("choice", "rung"), [("auto", Rung.FP16), ("bf16", Rung.BF16), ("fp32", Rung.FP32)]
)
def test_a_job_starts_at_the_rung_that_was_asked_for(choice, rung):
    assert first_rung(choice) is rung


@pytest.mark.parametrize(
    ("choice", "on_gpu", "precision"),
    [
        ("auto", True, Rung.FP16),
        ("auto", False, Rung.FP32),
        ("fp16", True, Rung.FP16),
        ("fp16", False, Rung.FP16),
        ("bf16", True, Rung.BF16),
        ("bf16", False, Rung.BF16),
        ("fp32", True, Rung.FP32),
        ("fp32", False, Rung.FP32),
    ],
)
def test_weights_are_in_fp16_on_gpus_and_in_fp32_on_cpus_unless_asked(choice, on_gpu, precision):
    assert model_precision(choice, on_gpu=on_gpu) is precision


@pytest.mark.parametrize(
    ("precision", "after"),
    [
        (Rung.FP16, Rung.SELECTIVE_FP32),
        (Rung.SELECTIVE_FP32, Rung.FP32),
        (Rung.BF16, Rung.FP32),
        (Rung.FP32, None),
    ],
)
def test_what_is_not_finite_goes_on_to_the_next_rung_until_there_is_none(precision, after):
    assert NEXT_RUNG[precision] is after


@pytest.mark.parametrize("first", Rung)
def test_every_ladder_ends_at_fp32_and_has_no_rung_twice(first):
    rungs = ladder(first)
    assert (rungs[0], rungs[-1]) == (first, Rung.FP32)
    assert len(set(rungs)) == len(rungs)


PRECISIONS = [Rung.FP16, Rung.BF16, Rung.FP32]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_worker_takes_every_rung_that_its_own_rows_may_come_to(precision):
    steps = served_steps(precision)
    assert {(precision, rung) for rung in ladder(precision)} <= set(steps)
    assert len(steps) == len(set(steps))


@pytest.mark.parametrize("precision", [Rung.FP16, Rung.BF16])
def test_a_worker_with_rounded_weights_takes_no_job_of_another_ladder(precision):
    """A job that starts in FP32 must be computed with weights in FP32."""
    assert {first for first, _ in served_steps(precision)} == {precision}


def test_a_worker_with_fp32_weights_takes_everything():
    every = {(first, rung) for first in PRECISIONS for rung in ladder(first)}
    assert set(served_steps(Rung.FP32)) == every


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_worker_takes_retries_before_new_batches(precision):
    heights = [ladder(first).index(rung) for first, rung in served_steps(precision)]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_worker_takes_the_jobs_of_a_producer_with_the_same_choice(choice, on_gpu):
    first = first_rung(choice)
    assert (first, first) in served_steps(model_precision(choice, on_gpu=on_gpu))
