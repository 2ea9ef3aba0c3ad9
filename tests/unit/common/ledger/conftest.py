"""Fixtures with a small open job."""

import pytest

from common.ledger.ledger import Ledger
from tests.support.ledgers import MANIFEST, QUEUE


@pytest.fixture(autouse=True)
def job(ledger: Ledger) -> None:
    """An open job of two batches."""
    assert ledger.jobs.create(MANIFEST, QUEUE)
