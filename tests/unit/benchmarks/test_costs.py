"""The measurement of costs, whose parts are the fleet's own."""

from benchmarks import costs
from benchmarks.costs import measure_ledger
from benchmarks.stores import CountingStore
from benchmarks.stubs import MODEL
from common.job.manifest import write_manifest
from common.ledger.ledger import Ledger
from producer.scheduling.opening import job_queue
from tests.support.jobs import manifest_of


def test_heartbeats_and_looks_at_a_job_are_measured(redis, redis_url, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "TIMES", 3)
    store, manifest = CountingStore(tmp_path), manifest_of([1] * 8, model=MODEL.text)
    store.check_writable()
    write_manifest(store, manifest)
    ledger = Ledger(redis)
    ledger.jobs.create(manifest, job_queue(manifest))
    found = measure_ledger(redis, redis_url, store, manifest)
    assert found["heartbeat"].commands["evalsha"][0] >= 4
    assert found["watch"].commands["mget"][0] >= 1
    progress = ledger.jobs.progress(manifest.job)
    assert progress is not None
    assert progress.leased == 0
