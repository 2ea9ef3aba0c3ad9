"""Submitting: two producers at once, notes and warnings."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from common.alphabet import DNA, PROTEIN
from common.errors import InputError, UserError
from common.job.manifest import read_manifest
from common.job.output_form import OutputForm
from common.ledger.ledger import Ledger
from common.model_source import ModelSource
from common.model_specs import DNABERT_S, ESM2, MODELS
from common.rungs import Rung
from common.store import FileStore, StoreError
from common.wire.celery_app import make_celery, publish
from common.wire.messages import Priority
from producer.input.batches import Budget
from producer.input.source import Source
from producer.scheduling.keeper import Keeper
from producer.scheduling.opening import model_of
from producer.scheduling.publisher import Publisher
from producer.submission.request import (
    Request,
    default_long,
    family_of,
    job_name,
    make_request,
    queue_of_request,
    window_overlap,
)
from producer.submission.staging import stage
from producer.submission.submit import (
    UNKNOWN_MODEL,
    Hardware,
    Submission,
    stage_alone,
    submit,
)
from tests.support.jobs import retry_after, unstable
from tests.support.shards import store_shard
from tests.support.staged import messages
from tests.support.stores import folder_store

MODEL = "esm2_t6_8M_UR50D"


def request_of(fasta: Path, **options: Any) -> Request:
    defaults = {
        "model": ModelSource.parse(MODEL),
        "alphabet": PROTEIN,
        "rung": Rung.FP16,
        "on_instability": "retry",
        "form": OutputForm(max_residues=1022),
        "unknown": "error",
        "long": "truncate",
    }
    return Request(source=Source(str(fasta)), **(defaults | options))


def publisher_of(ledger: Ledger, redis_url: str) -> Publisher:
    return Publisher(ledger, make_celery(redis_url, []), high_water=1000)


@pytest.fixture
def proteins(tmp_path) -> Path:
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">a\nMKTAYIAK\n>b\nGAVL\n")
    return fasta


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "store")


def test_a_job_that_another_producer_has_just_staged_is_taken_as_it_is(ledger, store, proteins):
    request = request_of(proteins)
    arguments = (request, store, ledger, request.fingerprint(), Budget(tokens=10), MODELS[MODEL])
    first = stage_alone(*arguments)
    store.put(f"{first.job}/output/0000000.fp16.h5", b"a shard")
    assert stage_alone(*arguments) == first
    assert store.get(f"{first.job}/output/0000000.fp16.h5") == b"a shard"


@pytest.mark.parametrize(
    "change",
    [
        {"alphabet": DNA},
        {"rung": Rung.FP32},
        {"long": "error"},
        {"unknown": "x"},
        {"gaps": "strip"},
        {"empty": "skip"},
        {"min_length": 2},
        {"form": OutputForm(max_residues=1022, overlap=0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_option_is_another_job(proteins, change):
    request = request_of(proteins)
    assert request.fingerprint() == request_of(proteins).fingerprint()
    assert replace(request, **change).fingerprint() != request.fingerprint()


@pytest.mark.parametrize(
    ("model", "name"), [(MODEL, "p-9eae99f608f2"), ("dnabert_s", "p-05a75e1c17c2")]
)
def test_a_request_has_the_name_that_it_had_before_there_were_more_options(proteins, model, name):
    request = make_request(Source(str(proteins)), model)
    assert job_name(request.source, request.fingerprint()) == name


def test_a_request_that_is_to_be_new_is_another_job_each_time(ledger, redis_url, store, proteins):
    publisher, hardware = publisher_of(ledger, redis_url), Hardware(on_gpu=True, workers=1)
    jobs = {
        submit(
            request_of(proteins, nonce=nonce),
            store,
            ledger,
            publisher,
            hardware=hardware,
            tokens=None,
        ).job
        for nonce in (None, "one", "other", "one")
    }
    assert len(jobs) == 3
    assert {job.rpartition("-")[0] for job in jobs} == {"p"}


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
def test_a_submit_makes_no_store_where_one_with_open_jobs_was(
    ledger, redis_url, store, proteins, tmp_path, left
):
    publisher, hardware = publisher_of(ledger, redis_url), Hardware(on_gpu=True, workers=1)
    options = {"hardware": hardware, "tokens": None}
    first = submit(request_of(proteins), store, ledger, publisher, **options)
    Keeper(store, ledger, publisher).step()
    store.root.rename(tmp_path / "away")
    if left == "an empty mount point":
        store.root.mkdir()
    other = request_of(proteins, nonce="other")
    with pytest.raises(StoreError, match=f"{first.job} is open: mount it"):
        submit(other, store, ledger, publisher, **options)
    assert not list(tmp_path.glob("store/*"))
    ledger.jobs.cancel(first.job)
    assert not submit(other, store, ledger, publisher, **options).resumed


def test_a_submit_to_a_store_that_is_not_there_has_no_job_of_another_store_cancelled(
    ledger, redis_url, store, proteins, tmp_path
):
    publisher, hardware = publisher_of(ledger, redis_url), Hardware(on_gpu=True, workers=1)
    options = {"hardware": hardware, "tokens": None}
    first = submit(request_of(proteins), store, ledger, publisher, **options).job
    Keeper(store, ledger, publisher).step()
    elsewhere = folder_store(tmp_path / "other")
    other = request_of(proteins, nonce="other")
    second = submit(other, elsewhere, ledger, publisher, **options).job
    store.root.rename(tmp_path / "away")
    with pytest.raises(StoreError, match=f"jobs {second}, {first} are open: mount it") as caught:
        submit(request_of(proteins, nonce="third"), store, ledger, publisher, **options)
    assert str(caught.value).endswith("or, if it was deleted, name another place (--store).")
    assert "cancel" not in str(caught.value)


@pytest.mark.parametrize(
    ("priority", "before"),
    [(Priority.HIGH, "high."), (Priority.NORMAL, ""), (Priority.LOW, "low.")],
)
def test_a_priority_has_its_own_queues_for_retries_too_and_changes_no_output(
    ledger, redis, redis_url, store, proteins, priority, before
):
    publisher, hardware = publisher_of(ledger, redis_url), Hardware(on_gpu=True, workers=1)
    request = request_of(proteins, priority=priority)
    assert request.fingerprint() == request_of(proteins).fingerprint()
    manifest = submit(request, store, ledger, publisher, hardware=hardware, tokens=None).manifest
    assert read_manifest(store, manifest.job).priority is priority
    queue = f"{before}{MODEL}.fp16"
    assert messages(redis, queue) == [manifest.batch(0)]
    result = unstable(manifest.batch(0))
    ledger.results.complete(result)
    retry = retry_after(manifest, result)
    publish(publisher.app, model_of(manifest), [retry])
    assert messages(redis, f"{queue}.selective_fp32") == [retry]
    queues = ledger.jobs.progress(manifest.job).queues
    assert queues[retry.rung] == f"{queue}.selective_fp32"


def test_what_to_do_about_instability_changes_no_output_and_makes_no_other_job(proteins):
    request = request_of(proteins)
    assert replace(request, on_instability="fail").fingerprint() == request.fingerprint()


def test_what_to_do_about_instability_is_what_was_asked_for_last(
    ledger, redis_url, store, proteins
):
    publisher, hardware = publisher_of(ledger, redis_url), Hardware(on_gpu=True, workers=1)
    names, found = set(), []
    for policy in ("fail", "retry", "fail"):
        request = request_of(proteins, on_instability=policy)
        submission = submit(request, store, ledger, publisher, hardware=hardware, tokens=None)
        names.add(submission.job)
        found.append((submission.resumed, submission.left, submission.manifest.batches))
        assert ledger.jobs.stops_at_instability(submission.job) == (policy == "fail")
    assert len(names) == 1
    assert found == [(False, 1, 1), (True, 1, 1), (True, 1, 1)]


@pytest.mark.parametrize("policy", ["fail", "retry"])
def test_a_finished_job_cannot_stop_any_more_and_says_so_if_it_would_have(
    ledger, redis_url, store, proteins, policy
):
    def submit_once(on_instability: str) -> Submission:
        request = request_of(proteins, on_instability=on_instability)
        publisher, hardware = publisher_of(ledger, redis_url), Hardware(on_gpu=True, workers=1)
        return submit(request, store, ledger, publisher, hardware=hardware, tokens=None)

    manifest = submit_once("retry").manifest
    for index, rung, rows in (
        (0, Rung.FP16, [1]),
        (0, Rung.SELECTIVE_FP32, []),
        (0, Rung.FP32, []),
    ):
        store_shard(store, manifest, index, rung=rung, rows=rows)
    ledger.jobs.forget(manifest.job)  # it learns from the store that row 0 was finite nowhere
    warnings = "".join(submit_once(policy).warnings)
    assert ledger.jobs.progress(manifest.job).finished
    warned = "1 sequence of this finished job had no finite embedding at the first rung" in warnings
    assert warned == (policy == "fail")


def staged(store: FileStore, request: Request, model: str, tokens: int = 10**6) -> Any:
    budget = Budget(tokens=tokens)
    return stage(
        *(store, request, request.fingerprint()),
        budget=budget,
        spec=MODELS[model],
        created=lambda: datetime.now(UTC),
    )


def test_the_manifest_of_proteins_says_what_was_read(store, tmp_path):
    fasta = tmp_path / "p.fasta"
    fasta.write_text(f">a\nMKTAYIAK\n>b\n{'MK' * 1000}\n>a\nMJ\n")
    manifest = staged(store, request_of(fasta, unknown="x"), MODEL)
    report = manifest.report
    assert manifest.alphabet == "protein"
    assert (report.records, report.residues) == (3, 8 + 1022 + 2)
    assert (report.long, report.replaced, report.skipped, report.duplicate_ids) == (1, 1, 0, 1)
    assert not report.looks_like_dna
    assert (manifest.batch_records, manifest.batch_tokens) == ([3], [report.residues + 6])


def test_the_manifest_of_dna_counts_whole_records_in_windows_and_tokens_as_its_model_does(
    store, tmp_path
):
    fasta = tmp_path / "contigs.fna"
    fasta.write_text(f">a\nACGTN\n>b\n{'ACGTR' * 5000}\n")
    request = request_of(
        fasta,
        model=ModelSource.parse("dnabert_s"),
        alphabet=DNA,
        form=OutputForm(max_residues=10_000, overlap=1000),
        long="window",
    )
    manifest = staged(store, request, "dnabert_s")
    assert manifest.alphabet == "dna"
    assert (manifest.report.residues, manifest.report.long) == (5 + 25_000, 1)
    assert manifest.batch_tokens == [1 + 2 + 5000 + 2]
    assert not manifest.report.looks_like_dna
    assert manifest.report.molecule == "dna"


@pytest.mark.parametrize("records", [20, 20_000], ids=["at the end", "early"])
def test_an_input_of_another_molecule_leaves_nothing_in_the_store(tmp_path, store, records):
    fasta = tmp_path / "dna.fa"
    fasta.write_text("".join(f">{n}\n{'ACGTTGCAAG' * 6}\n" for n in range(records)))
    before = list(store.keys(""))
    with pytest.raises(InputError, match="are DNA or RNA"):
        staged(store, request_of(fasta), MODEL, tokens=100)
    assert list(store.keys("")) == before


# --- what an option is if it is not given -------------------------------------------------------


def test_long_records_are_cut_for_proteins_and_go_in_windows_for_dna():
    assert default_long(ESM2) == "truncate"
    assert default_long(DNABERT_S) == "window"


def test_windows_overlap_by_a_tenth_unless_the_user_says_otherwise():
    assert window_overlap("window", 10_000, None) == 1000
    assert window_overlap("window", 9, None) == 0
    assert window_overlap("window", 10_000, 0) == 0
    assert window_overlap("window", 10_000, 17) == 17


@pytest.mark.parametrize("long", ["truncate", "error"])
def test_an_overlap_is_of_windows_alone(long):
    assert window_overlap(long, 10_000, None) is None
    with pytest.raises(UserError, match="overlap applies to windows only: set long"):
        window_overlap(long, 10_000, 17)


def test_a_model_that_only_workers_can_see_is_taken_for_a_protein_model(tmp_path):
    assert family_of(ModelSource.parse("dnabert_s")) is DNABERT_S
    assert family_of(ModelSource.parse(str(tmp_path / "none"))) is ESM2
    assert UNKNOWN_MODEL.family is ESM2


def test_scores_are_refused_for_a_model_without_a_head(proteins):
    with pytest.raises(UserError, match="include logits: DNABERT-S has no language-model head"):
        make_request(Source(str(proteins)), "dnabert_s", include=("mean", "logits"))


def test_two_spellings_of_a_model_are_one_job_in_one_queue(proteins):
    spellings = ("esm2_t6_8M_UR50D", "ESM2_t6_8m_UR50D", "facebook/esm2_t6_8M_UR50D")
    requests = [make_request(Source(str(proteins)), spelling) for spelling in spellings]
    assert len({request.fingerprint() for request in requests}) == 1
    assert len({queue_of_request(request) for request in requests}) == 1


def test_the_manifest_has_the_checksum_of_each_input_object(ledger, redis_url, store, proteins):
    publisher, hardware = publisher_of(ledger, redis_url), Hardware(on_gpu=True, workers=1)
    request = request_of(proteins)
    manifest = submit(request, store, ledger, publisher, hardware=hardware, tokens=8).manifest
    objects = [store.get(key) for key in store.keys(f"{manifest.job}/input/")]
    assert len(objects) == manifest.batches > 1
    assert manifest.input_crc32 == "".join(f"{crc32(data):08x}" for data in objects)
