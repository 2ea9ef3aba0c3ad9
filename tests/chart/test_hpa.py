"""The reading of a HorizontalPodAutoscaler's rules that ``test_keda.py`` relies on."""

from dataclasses import replace

from tests.chart import hpa
from tests.chart.hpa import DOWN, UP, History, Hpa, Policy, Rules


def test_replicas_grow_as_fast_as_policies_allow():
    found = History()
    many = Hpa(1, 100, 1.0)
    replicas, found = hpa.synced(many, found, 0.0, 1, 100.0, 1)
    assert replicas == 5  # four pods more
    assert hpa.synced(many, found, 10.0, 5, 100.0, 5)[0] == 5
    replicas, found = hpa.synced(many, found, 15.0, 5, 100.0, 5)
    assert replicas == 10  # twice as many


def test_policies_for_scaling_down_limit_a_period():
    slow = Rules(0.0, (Policy("Pods", 1, 60.0),))
    some = Hpa(1, 10, 1.0, UP, slow)
    replicas, found = hpa.synced(some, History(), 0.0, 8, 1.0, 8)
    assert replicas == 7
    assert hpa.synced(some, found, 30.0, 7, 1.0, 7)[0] == 7
    assert hpa.synced(some, found, 61.0, 7, 1.0, 7)[0] == 6
    never = replace(some, down=replace(DOWN, window=0.0, select="Disabled"))
    assert hpa.synced(never, History(), 0.0, 8, 1.0, 8)[0] == 8


def test_a_difference_within_a_tenth_changes_nothing():
    assert hpa.wanted(65, 60, 1) == 1
    assert hpa.wanted(67, 60, 1) == 2
    assert hpa.wanted(55, 60, 1) == 1
