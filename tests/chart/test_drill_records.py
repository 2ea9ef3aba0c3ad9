"""What the drill counts as wrong or untrue in what it has recorded."""

from dataclasses import replace

from tests.chart.drill.kubelet import Look
from tests.chart.drill.records import Candidate, Decision, Seen, not_alive, untrue


def test_a_busy_pod_that_is_ended_while_another_is_idle_is_wrong():
    idle = Candidate("a", ready=True, cost=0, claimed=0, seconds=60.0, chosen=False)
    busy = Candidate("b", ready=True, cost=1, claimed=4, seconds=60.0, chosen=True)
    assert Decision(0.0, (idle, busy)).wrong == [busy]
    assert Decision(0.0, (replace(idle, chosen=True), busy)).wrong == []
    assert Decision(0.0, (replace(idle, seconds=1.0), busy)).wrong == []
    assert Decision(0.0, (idle, replace(busy, claimed=0))).wrong == []


def seen(at: float, ready: bool, takes_batches: bool, *, alive: bool = True) -> Seen:
    return Seen(Look(at, "a", 0.0, alive, ready, counts=True, ending=False), takes_batches)


def test_a_probe_that_lags_behind_is_untrue_until_it_follows():
    all_seen = [
        seen(0, False, False),
        seen(1, False, True),
        seen(2, False, True),
        seen(3, True, True),
    ]
    [found] = untrue(all_seen)
    assert (found.begin, found.seconds, found.said) == (1, 2, False)


def test_a_probe_that_never_follows_is_untrue_until_the_end():
    [found] = untrue([seen(0, True, True), seen(1, True, False), seen(9, True, False)])
    assert (found.seconds, found.said) == (8, True)


def test_a_container_is_not_alive_only_after_it_was():
    starts, lives, hangs = (
        seen(at, False, False, alive=alive) for at, alive in ((0, False), (1, True), (2, False))
    )
    assert not_alive([starts, lives]) == []
    assert not_alive([starts, lives, hangs]) == [hangs.look]
