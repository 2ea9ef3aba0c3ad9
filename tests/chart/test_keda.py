"""What the chart's ScaledObject does by KEDA's rules, whatever the demand and whoever is away."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chart import hpa
from tests.chart.hpa import History
from tests.chart.keda import (
    Autoscaler,
    Fallback,
    Scaled,
    State,
    measured,
    polled,
    read_scaled,
    synced,
)
from tests.conftest import ROOT
from tests.support.chart import find, render

#: Seconds between two moments of a simulation.
MOMENT = 5.0


@pytest.fixture(scope="module")
def scaled() -> Scaled:
    """The ScaledObject of the chart's only pool by default."""
    return read_scaled(find(render(), "ScaledObject", "esm2-650m"))


#: What a keeper answers for some moments: batches, or nothing.
ANSWERS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.just(0), st.integers(1, 3000)),
        st.integers(1, 200),
    ),
    min_size=1,
    max_size=12,
)


def simulated(
    scaled: Scaled, answers: Sequence[tuple[int | None, int]], start: State | None = None
) -> list[tuple[float, int | None, State]]:
    """Return time, answer and state of every moment."""
    answer: int | None = None
    autoscaler = Autoscaler(scaled, lambda: answer, start)
    found, now = [], 0.0
    for answer, moments in answers:
        for _ in range(moments):
            autoscaler.turn(now)
            found.append((now, answer, autoscaler.state))
            now += MOMENT
    return found


@given(answers=ANSWERS)
@pytest.mark.parametrize("before_2_19", [False, True])
def test_a_pool_with_demand_always_has_a_worker(scaled, before_2_19, answers):
    seen = 0
    for _, answer, state in simulated(replace(scaled, before_2_19=before_2_19), answers):
        seen = seen + 1 if answer else 0
        assert state.replicas > 0 or seen * MOMENT <= scaled.polling


@given(answers=ANSWERS)
@pytest.mark.parametrize("before_2_19", [False, True])
def test_no_last_worker_ends_while_nobody_knows_the_demand(scaled, before_2_19, answers):
    states = simulated(replace(scaled, before_2_19=before_2_19), answers)
    for (_, _, before), (_, answer, after) in pairwise(states):
        assert not (answer is None and before.replicas > 0 and after.replicas == 0)


@given(answers=ANSWERS)
def test_there_are_never_more_workers_than_the_pool_may_have(scaled, answers):
    assert all(state.replicas <= scaled.hpa.most for _, _, state in simulated(scaled, answers))


@given(replicas=st.integers(1, 4), moments=st.integers(1, 1000))
@pytest.mark.parametrize("before_2_19", [False, True])
def test_workers_stay_while_no_keeper_answers(scaled, before_2_19, replicas, moments):
    start = State(replicas, active_at=0.0)
    states = simulated(replace(scaled, before_2_19=before_2_19), [(None, moments)], start)
    assert {state.replicas for _, _, state in states} == {replicas}


@given(batches=st.integers(1, 3000), away=st.integers(1, 400))
def test_the_last_worker_ends_after_the_cooldown(scaled, batches, away):
    answers = [(batches, 50), (None, away), (0, 400)]
    states = simulated(scaled, answers)
    known = (50 + away) * MOMENT
    [ended, *_] = [now for now, _, state in states if now >= known and state.replicas == 0]
    latest = scaled.cooldown + 2 * scaled.polling
    earliest = scaled.cooldown - away * MOMENT  # the demand was last seen before
    assert earliest <= ended - known <= latest
    assert states[-1][2].replicas == 0


@given(batches=st.integers(1, 10_000))
def test_workers_are_as_many_as_batches_need(scaled, batches):
    exact = -(-batches // int(scaled.hpa.target))
    replicas = simulated(scaled, [(batches, 200)])[-1][2].replicas
    assert replicas == min(exact, scaled.hpa.most) or (
        # Within a tenth of what the present pods are for.
        abs(1 - batches / (scaled.hpa.target * replicas)) <= hpa.TOLERANCE
    )


def promised() -> list[tuple[int, int]]:
    """Return batches and workers of the table in the documentation, which is for 16 workers."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    table = page.partition("| batches left | workers |")[2].partition("\n\n")[0]
    return [
        (int(n), int(workers)) for n, workers in re.findall(r"^\| (\d+) \| (\d+) \|$", table, re.M)
    ]


def test_workers_are_as_many_as_the_documentation_promises():
    pool = {"name": "a", "model": "esm2_t33_650M_UR50D", "replicas": {"min": 0, "max": 16}}
    scaled = read_scaled(find(render({"pools": [pool]}), "ScaledObject", "a"))
    found = [(n, simulated(scaled, [(n, 100)])[-1][2].replicas) for n, _ in promised()]
    assert len(found) > 4
    assert found == promised()


def test_a_pool_without_workers_gets_one_if_keepers_stay_away(scaled):
    states = simulated(scaled, [(0, 100), (None, 100)])
    assert states[99][2].replicas == 0
    assert states[-1][2].replicas == 1
    older = simulated(replace(scaled, before_2_19=True), [(0, 100), (None, 100)])
    assert older[-1][2].replicas == 0


def test_a_fallback_of_no_replicas_would_end_a_busy_pool(scaled):
    """The reason for the chart's fallback of one."""
    assert scaled.fallback is not None
    wrong = replace(scaled, fallback=replace(scaled.fallback, replicas=0, failures=10**6))
    states = simulated(wrong, [(100, 20), (None, 200)])
    assert states[-1][2].replicas == 0


def test_a_fallback_with_a_fixed_number_would_end_busy_workers(scaled):
    """The reason for the fallback's behaviour."""
    fixed = replace(scaled, fallback=Fallback(replicas=1, failures=4, behavior="static"))
    answers = [(10_000, 100), (None, 200)]
    assert simulated(fixed, answers)[-1][2].replicas == 1
    assert simulated(scaled, answers)[-1][2].replicas == scaled.hpa.most


def test_a_fixed_pool_that_begins_to_scale_has_its_pods_back_soon(scaled):
    """Without a number in the chart Kubernetes leaves one pod, as docs/kubernetes.md says."""
    many = replace(scaled, hpa=replace(scaled.hpa, most=16))
    states = simulated(many, [(10_000, 50)], State(1))
    back = next(now for now, _, state in states if state.replicas == 16)
    assert back <= 45


def test_a_paused_pool_stays_as_it_is(scaled):
    paused = replace(scaled, paused=True)
    states = simulated(paused, [(0, 200), (500, 200), (None, 200)], State(2))
    assert {state.replicas for _, _, state in states} == {2}


def test_fewer_workers_are_wanted_only_after_the_window(scaled):
    states = simulated(scaled, [(10_000, 50), (1, 400)])
    fewer = next(now for now, _, state in states if now > 250 and state.replicas < scaled.hpa.most)
    assert abs(fewer - 250 - scaled.hpa.down.window) <= hpa.SYNC_SECONDS


def test_errors_count_in_a_row(scaled):
    assert scaled.fallback is not None
    state = State(3)
    for _ in range(scaled.fallback.failures):
        value, fallen, state = measured(scaled, state, None)
        assert (value, fallen) == (None, False)
    assert measured(scaled, state, None)[:2] == (3 * scaled.hpa.target, True)
    _, _, state = measured(scaled, state, 5.0)
    assert measured(scaled, state, None)[:2] == (None, False)


def test_the_first_look_ends_the_pod_of_a_new_release(scaled):
    """A Deployment without ``replicas`` begins with one."""
    assert polled(scaled, State(1, created=0.0), 1.0, 0.0).replicas == 0
    assert polled(scaled, State(1, created=0.0), 1.0, None).replicas == 1


def test_a_floor_of_workers_is_kept(scaled):
    floor = replace(scaled, fewest=2, hpa=replace(scaled.hpa, fewest=2))
    assert simulated(floor, [(0, 500)], State(0))[-1][2].replicas == 2


def test_a_pool_of_no_pods_is_not_scaled_by_the_horizontal_autoscaler(scaled):
    assert synced(scaled, State(0), 0.0, 1000.0).replicas == 0


def test_without_keda_one_worker_stays_and_the_others_follow_the_demand():
    some = {"replicas": {"min": 1, "max": 4}}
    objects = render({"autoscaling": {"mode": "hpa"}, "poolDefaults": some})
    alone = hpa.read_hpa(find(objects, "HorizontalPodAutoscaler", "esm2-650m"))
    replicas, history, counts = 1, History(), []
    for value in (10_000.0, None, 1.0):
        for moment in range(100):
            now = (len(counts) * 100 + moment) * hpa.SYNC_SECONDS
            replicas, history = hpa.synced(alone, history, now, replicas, value, replicas)
        counts.append(replicas)
    assert counts == [alone.most, alone.most, 1]
