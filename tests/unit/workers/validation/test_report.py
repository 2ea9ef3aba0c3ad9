"""The report: its marks and explanations, and its width in the worst case."""

from dataclasses import replace

import numpy as np
import pytest

from common.model_source import ModelSource
from common.model_specs import ESM2, ModelSpec
from common.rungs import Rung
from workers.validation.judge import judge
from workers.validation.measure import Measured
from workers.validation.record import Validation
from workers.validation.report import WIDTH, print_report
from workers.validation.sets import make_sets
from workers.validation.statistics import Comparison

SOURCE = ModelSource("esm2_t36_3B_UR50D")

#: The widest figures: the values of all sequences but the last are not finite.
WORST = Comparison(
    cosines=(),
    cosine_min=-0.123456,
    cosine_mean=-0.123456,
    centred_cosine_min=-0.123456,
    mean_difference=1.23456,
    std_difference=1.2345,
    norm_difference=1.2345,
    outliers=0.1111,
    nan=79_360,
    inf=79_360,
)


@pytest.fixture
def sound() -> Validation:
    made = make_sets(ESM2, 4)
    generator = np.random.default_rng(0)
    vectors = {each.name: generator.normal(0, 1, (4, 64)).astype(np.float32) for each in made}
    spec = ModelSpec(name="made-up", layers=1, dim=64, heads=1, family=ESM2)
    fp32 = Measured(spec, "0" * 16, Rung.FP32, made, vectors, vectors)
    return judge(SOURCE, SOURCE, "NVIDIA H200", fp32, replace(fp32, precision=Rung.FP16))


def with_figures(validation: Validation, figures: Comparison) -> Validation:
    """Return a validation with the same figures in every set of every comparison."""
    state = {"figures": figures, "passed": figures.passed, "failures": figures.failures}
    compared = tuple(each.model_copy(update=state) for each in validation.comparisons)
    return validation.model_copy(update={"comparisons": compared, "passed": figures.passed})


def printed(validation: Validation, capsys: pytest.CaptureFixture[str]) -> str:
    print_report(validation)
    return capsys.readouterr().out


def test_a_sound_model_fits_a_terminal_of_80_columns(sound, capsys):
    table = [line for line in printed(sound, capsys).splitlines() if line.startswith("very_long")]
    assert len(table) == 4
    assert max(map(len, table)) <= 80


def test_the_verdict_says_where_the_smallest_cosine_is(sound, capsys):
    text = " ".join(printed(sound, capsys).split())
    assert "PASS: these weights may be served in fp16 on NVIDIA H200: smallest cosine 1.0" in text
    assert f"in {sound.worst}; 0 NaN, 0 Inf." in text


def test_the_centred_cosine_is_shown_and_explained_in_a_line(sound, capsys):
    figures = replace(sound.comparisons[0].figures, centred_cosine_min=-0.123456)
    text = printed(with_figures(sound, figures), capsys)
    assert text.count("-0.123456 ") == 20
    assert "not part of the verdict." in next(
        line for line in text.splitlines() if line.startswith("Centred min: ")
    )


def test_figures_fit_a_page_when_everything_is_wrong(sound, capsys):
    text = printed(with_figures(sound, WORST), capsys)
    assert max(map(len, text.splitlines())) <= WIDTH
    for figure in ("-0.123456!", "1.23456!", "123.45%!", "11.11%!", "79,360!"):
        assert text.count(figure) % 20 == 0, figure
        assert figure in text
    assert text.count("FAIL\n") + text.count("FAIL ") == 20
    assert "…" not in text


def test_where_nothing_is_finite_there_are_dashes(sound, capsys):
    nothing = {name: None for name, value in vars(WORST).items() if isinstance(value, float)}
    text = printed(with_figures(sound, replace(WORST, **nothing)), capsys)
    (line, *_) = (line for line in text.splitlines() if line.startswith("very_long"))
    assert line.split()[1:8] == ["-"] * 7
