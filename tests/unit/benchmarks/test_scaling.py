"""A simulated fleet: no part is more than fully used, and the slowest part is the bottleneck."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from benchmarks.costs import MEASURED
from benchmarks.one_job import SPREAD, ProducerCosts
from benchmarks.redisload import Load, Meter
from benchmarks.scaling import details, table
from benchmarks.scaling_figure import draw_shares
from benchmarks.simulated import (
    ROUTE,
    S3,
    TOKENS_PER_SECOND,
    fleet_of,
    folder,
    simulate,
    typical_batch,
)
from benchmarks.stores import CountingStore
from common.job.output_form import OutputForm
from common.model_specs import MODELS
from common.store.s3 import PART_BYTES
from producer.input.batches import MAX_SHARD_BYTES, batch_tokens

SHARED = sorted(set(ROUTE) - {"GPU"})
MEAN = OutputForm(max_residues=1022)
PER_RESIDUE = OutputForm(include=("per_residue",), max_residues=1022)

#: Largest difference of a simulated share from its long-term value.
TOLERANCE = 0.03

gpus = st.integers(1, 12)
gpu_seconds = st.floats(0.01, 10)
shares = st.fixed_dictionaries({part: st.floats(0, 1) for part in SHARED})
models = st.sampled_from(list(TOKENS_PER_SECOND))
forms = st.sampled_from([MEAN, PER_RESIDUE])
stores = st.just(S3) | st.builds(folder, st.floats(1e8, 1e11))

few = settings(max_examples=30)


def simulated(gpus: int, shares: dict[str, float], seconds: float = 1.0) -> dict[str, float]:
    """Return a fleet whose parts take these shares of a batch's time on its GPU."""
    return simulate(gpus, seconds, {part: share * seconds for part, share in shares.items()})


@few
@given(gpus, shares, gpu_seconds)
def test_no_part_is_busy_for_more_than_all_of_the_time(gpus, shares, seconds):
    busy = simulated(gpus, shares, seconds)
    assert set(busy) == set(ROUTE)
    assert all(0 <= share <= 1 + 1e-9 for share in busy.values())


@few
@given(shares, gpu_seconds)
def test_one_gpu_goes_at_its_own_speed_if_the_rest_fits_beside_it(shares, seconds):
    small = {part: share / 5 for part, share in shares.items()}
    assert simulated(1, small, seconds)["GPU"] > 1 - TOLERANCE


@few
@given(gpus, shares)
def test_a_part_is_busy_in_proportion_to_the_batches_that_were_computed(gpus, shares):
    busy = simulated(gpus, shares)
    for part, share in shares.items():
        assert busy[part] == pytest.approx(gpus * busy["GPU"] * share, abs=2 * TOLERANCE)


@few
@given(gpus, shares)
def test_more_gpus_leave_no_part_with_less_to_do(gpus, shares):
    fewer, more = simulated(gpus, shares), simulated(2 * gpus, shares)
    assert all(more[part] > fewer[part] - TOLERANCE for part in SHARED)


@few
@given(gpus, shares)
def test_more_gpus_are_never_used_better(gpus, shares):
    assert simulated(2 * gpus, shares)["GPU"] < simulated(gpus, shares)["GPU"] + TOLERANCE


@few
@given(shares, st.sampled_from(SHARED), st.floats(0.2, 1))
def test_the_slowest_part_decides_how_many_gpus_are_of_use(shares, slowest, most):
    shares = {part: share * most / 2 for part, share in shares.items()} | {slowest: most}
    many = math.ceil(2 / most)
    busy = simulated(many, shares)
    assert busy[slowest] == pytest.approx(1, abs=TOLERANCE)
    assert many * busy["GPU"] == pytest.approx(1 / most, rel=2 * TOLERANCE)


def test_the_same_seed_gives_the_same_figures_and_another_one_nearly_the_same():
    demands = dict.fromkeys(SHARED, 0.1)
    first, again, other = (simulate(4, 1.0, demands, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert other == pytest.approx(first, abs=TOLERANCE)


# --- fleets ---------------------------------------------------------------------------------------


@few
@given(models, forms, stores)
def test_a_part_is_full_at_the_gpus_that_are_told(model, form, store):
    fleet = fleet_of(model, form, store, MEASURED)
    full = fleet.full_at()
    first = min(full, key=full.__getitem__)
    if 2 <= full[first] <= 40:
        assert fleet.busy(math.floor(full[first] * 0.8))["GPU"] > 1 - TOLERANCE
        assert fleet.busy(math.ceil(full[first] * 1.5))[first] > 1 - TOLERANCE


@few
@given(models, forms, stores, gpus)
def test_one_job_alone_has_at_most_the_speed_of_its_gpus(model, form, store, gpus):
    fleet = fleet_of(model, form, store, MEASURED)
    times = fleet.one_job(gpus, 50 * fleet.batch.records)
    assert 0 < times.first_queued <= times.staged < times.computed < times.written
    assert 0 < fleet.share_of_linear(gpus, 50 * fleet.batch.records) < 1 + SPREAD


def test_a_large_job_has_nearly_the_speed_of_few_gpus_and_a_small_one_of_none():
    fleet = fleet_of("esm2_t33_650M_UR50D", MEAN, S3, MEASURED)
    assert fleet.share_of_linear(1, 1_000_000) > 0.99
    assert fleet.share_of_linear(64, 10_000) < 0.2


def test_more_gpus_than_a_file_is_written_for_are_of_no_use_to_one_job():
    fleet = fleet_of("esm2_t36_3B_UR50D", MEAN, S3, MEASURED, ProducerCosts(fetch_rate=1e7))
    enough = fleet.gpus_of_a_file
    assert 2 < enough < 8
    share = fleet.share_of_linear(math.ceil(4 * enough), 1_000_000)
    assert share == pytest.approx(enough / math.ceil(4 * enough), rel=2 * TOLERANCE)


def test_a_slow_command_makes_one_job_slow_and_leaves_many_as_they_were():
    slow = ProducerCosts(hash_rate=1e7, first_batch=50.0, tail=50.0)
    usual, slower = (
        fleet_of("esm2_t33_650M_UR50D", MEAN, S3, MEASURED, producer)
        for producer in (ProducerCosts(), slow)
    )
    assert slower.full_at() == usual.full_at()
    assert slower.share_of_linear(4, 100_000) < usual.share_of_linear(4, 100_000) / 2


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_what_redis_does_without_a_batch_leaves_less_room_for_batches(idle, watch):
    fleet = fleet_of("esm2_t33_650M_UR50D", MEAN, S3, MEASURED)
    busier = replace(
        MEASURED,
        idle=Load(MEASURED.idle.cpu + idle),
        watch=Load(MEASURED.watch.cpu + watch),
    )
    assert replace(fleet, costs=busier).full_at()["Redis"] <= fleet.full_at()["Redis"]


@pytest.mark.parametrize("model", TOKENS_PER_SECOND)
@pytest.mark.parametrize("form", [MEAN, PER_RESIDUE], ids=["mean", "per_residue"])
def test_a_batch_is_one_that_the_producer_would_cut(model, form):
    spec = MODELS[model]
    batch = typical_batch(spec, form)
    assert batch.written <= MAX_SHARD_BYTES
    budget = batch_tokens(spec, on_gpu=True, workers=1)
    full = batch.tokens / budget, batch.written / MAX_SHARD_BYTES
    assert 0.98 < max(full) <= 1


@pytest.mark.parametrize(
    ("size", "requests"),
    [(0, 1), (2**20, 1), (PART_BYTES, 1), (PART_BYTES + 1, 4), (256 * 10**6, 6)],
)
def test_a_large_object_is_written_in_parts_between_two_more_requests(size, requests):
    assert S3.requests(size) == requests
    assert folder(1e9).requests(size) == 1


def test_a_table_names_only_parts_that_have_a_limit():
    form, costs, alone = MEAN, MEASURED, {1000: {1: 0.75, 2: 0.5}}
    s3, shared_folder = (
        "\n".join(table(fleet_of("esm2_t6_8M_UR50D", form, store, costs), [1, 2], alone))
        for store in (S3, folder(1e9))
    )
    assert "| one job of 1,000 |" in s3
    assert "75.0%" in s3
    assert "store writes" in s3
    assert "store bandwidth" not in s3
    assert "store bandwidth" in shared_folder
    assert "store writes" not in shared_folder
    assert len({line.count("|") for line in s3.splitlines() if "|" in line}) == 1


def test_the_times_of_one_job_are_told():
    fleet = fleet_of("esm2_t33_650M_UR50D", MEAN, S3, MEASURED)
    assert details(fleet, 2, 1000).startswith("One job of 1,000 proteins on 2 GPUs: first batch")


def test_a_picture_is_drawn_anew_byte_for_byte(tmp_path):
    for name in ("a.svg", "b.svg"):
        draw_shares({1000: {1: 0.9, 2: 0.5}}, tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second
    assert b"now, 1,000 proteins" in first


# --- measuring ------------------------------------------------------------------------------------


def test_a_meter_reads_what_redis_did_since_it_was_made(redis: Redis):
    redis.set("before", 1)
    meter = Meter(redis)
    for _ in range(6):
        redis.get("before")
    load = meter.load(3)
    assert load.commands["get"][0] == 2
    assert "set" not in load.commands
    assert "info" not in load.commands
    assert load.cpu >= 0


def test_a_counting_store_notes_every_request_and_its_bytes(tmp_path):
    store = CountingStore(tmp_path)
    store.check_writable()
    store.put("a", b"123")
    with store.create("b") as path:
        path.write_bytes(b"12345")
    assert store.get("b") == b"12345"
    assert (store.written, store.read) == ([3, 5], [5])
