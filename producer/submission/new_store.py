"""Making a store, as only ``init`` and ``submit`` do: what is not there may not be mounted."""

from common.ledger.ledger import Ledger
from common.ledger.progress import OPEN_STATES
from common.store import NoStoreError, Store, StoreError


def make_store(store: Store, ledger: Ledger) -> bool:
    """Make a store, unless it is one, and check that it can be written; return whether it is new.

    Raises:
        StoreError: it cannot, or one with open jobs was here and is not.
    """
    check_mounted(store, ledger)
    is_new = False
    try:
        store.check_exists()
    except NoStoreError:
        is_new = True
    store.check_writable()
    return is_new


def check_mounted(store: Store, ledger: Ledger) -> None:
    """Check that a store is there which has open jobs: another would be made in its place.

    Raises:
        StoreError: it is not.
    """
    if ledger.stores.is_new(store.url):
        return
    is_open = [job for job, (state, _) in ledger.jobs.states().items() if state in OPEN_STATES]
    try:
        store.check_exists()
    except StoreError as error:
        if is_open:
            # Only the store knows which of them are in it: the others must not be cancelled.
            jobs = f"job {is_open[0]} is" if len(is_open) == 1 else f"jobs {', '.join(is_open)} are"
            raise StoreError(
                f"{store.url} is not there, though {jobs} open: mount it, or, if it was deleted, "
                "name another place (--store)."
            ) from error
