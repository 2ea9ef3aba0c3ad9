"""Both Helms render the chart, and the same objects."""

import pytest

from tests.support.chart import HELMS, find, refused, render


@pytest.mark.parametrize("helm", HELMS)
def test_a_release_has_the_keeper_s_service(helm):
    service = find(render(helm=helm), "Service", "keeper")
    assert service["spec"]["ports"][0]["port"] == 9808


@pytest.mark.parametrize("helm", HELMS)
def test_a_cluster_that_is_too_old_is_refused(helm):
    assert ">=1.29.0" in refused(helm=helm, kube_version="1.28.0")
