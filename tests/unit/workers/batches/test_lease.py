"""The lease of a batch, on a real Redis."""

import sys
import time

import pytest

from common.ledger.claims import ClaimOutcome, CrashRecord, ReleaseReason
from common.ledger.leases import RENEW_SECONDS
from tests.support.worlds import WORKER
from workers.batches.lease import Lease, LeaseLostError
from workers.batches.lease_renewer import LeaseRenewer


@pytest.fixture
def renewer(ledger) -> LeaseRenewer:
    """A renewer that is not started."""
    return LeaseRenewer(ledger, WORKER)


@pytest.fixture
def lease(ledger, renewer, batch) -> Lease:
    """A lease of the first batch, not claimed yet."""
    return Lease(batch, "a/1", ledger, renewer)


def test_a_lease_is_known_to_the_renewer_within_its_block_alone(lease, renewer):
    lease.claim("w")
    with lease:
        assert renewer.held() == [lease]
    assert renewer.held() == []


def test_a_batch_is_claimed_once_until_it_is_released(lease, renewer, ledger, batch):
    other = Lease(batch, "b/1", ledger, renewer)
    assert lease.claim("w").outcome is ClaimOutcome.TAKEN
    assert other.claim("w").outcome is ClaimOutcome.HELD
    assert lease.release(ReleaseReason.FAILED)
    assert other.claim("w").attempts == 2
    assert not lease.release(ReleaseReason.FAILED)


def test_a_lease_is_sure_until_it_was_not_renewed_for_a_while(lease):
    lease.claim("w")
    assert lease.is_sure
    lease.renewed_at -= RENEW_SECONDS
    assert not lease.is_sure
    lease.renew()
    assert lease.is_sure


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's monotonic clock stands still")
def test_a_lease_is_not_sure_after_its_machine_has_slept(lease, monkeypatch):
    """All clocks went on meanwhile but the monotonic one."""
    lease.claim("w")
    read = time.clock_gettime

    def after_sleep(clock: int) -> float:
        return read(clock) + (0 if clock == time.CLOCK_MONOTONIC else RENEW_SECONDS)

    monkeypatch.setattr(time, "clock_gettime", after_sleep)
    assert not lease.is_sure
    lease.renew()
    assert lease.is_sure


def test_a_lease_that_another_has_by_now_is_lost(lease, world):
    lease.claim("w")
    lease.raise_if_lost()
    world.take_over(lease.batch)
    with pytest.raises(LeaseLostError):
        lease.renew()
    with pytest.raises(LeaseLostError):
        lease.raise_if_lost()
    with pytest.raises(LeaseLostError):
        lease.save_crash_record(CrashRecord(crashes=3))
    assert lease.crash_record() == CrashRecord()
