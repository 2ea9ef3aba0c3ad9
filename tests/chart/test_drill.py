"""A short drill of the chart: what ``python -m tests.chart.drill`` runs, with a smaller job."""

from itertools import pairwise

import pytest

from tests.chart.drill.records import Records, by_pod
from tests.chart.drill.sandbox import missing_tools
from tests.chart.drill.scenario import SHORT, Result, run
from tests.support.chart import unavailable

#: Seconds for which a readiness probe may still say what was true before. A worker asks Redis every
#: ten seconds whether it is there.
LAG_SECONDS, LAG_OF_REDIS_SECONDS = 5.0, 16.0

#: Seconds between two looks at a pod, on a busy machine.
LOOKS_SECONDS = 5.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fleet_scales_from_none_to_four_and_back_through_faults_and_loses_nothing(tmp_path):
    if missing := missing_tools():
        unavailable(f"needs {', '.join(missing)}")
    result = run(tmp_path, SHORT)
    records = result.records
    assert sorted(result.rows.values()) == [SHORT.long_records, SHORT.batches * SHORT.records]
    assert_scaled(records)
    assert_idle_ended_first(records)
    assert_probes_were_true(result)
    for end in result.ends:
        assert end["codes"][-1] == 0, end
        assert end["seconds"] < 45, end


def assert_scaled(records: Records) -> None:
    """All workers were there when they were needed, and none before and after."""
    pods = [moment.pods for moment in records.moments]
    assert (pods[0], max(pods), pods[-1]) == (0, 4, 0)
    assert max(moment.ready for moment in records.moments) == 4
    for before, after in pairwise(records.moments):
        if before.pods and not after.pods:
            assert (after.demand, after.left) == (0, 0)
    failed = [moment for moment in records.moments if moment.demand is None]
    assert len(failed) > 5, "the demand was always known: nothing was shown"


def assert_idle_ended_first(records: Records) -> None:
    assert [decision for decision in records.decisions if decision.wrong] == []
    shown = [
        decision
        for decision in records.decisions
        if any(one.claimed and not one.chosen for one in decision.candidates)
    ]
    assert shown, "no pod was ended while another one was busy: nothing was shown"


def assert_probes_were_true(result: Result) -> None:
    usual, while_redis_was_away = result.lags()
    assert usual <= LAG_SECONDS, result.untrue
    assert while_redis_was_away <= LAG_OF_REDIS_SECONDS, result.untrue
    assert result.not_alive == []
    for ones in by_pod(result.records.seen).values():
        looks = [one.look for one in ones]
        gaps = [
            later.at - look.at for look, later in pairwise(looks) if later.started == look.started
        ]
        assert max(gaps, default=0) <= LOOKS_SECONDS
