"""Errors of a user: one clear message, exit code 2, no traceback, and nothing queued."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.job.manifest import read_manifest
from common.job.quarantine import Quarantine, add_to_quarantine
from common.ledger.events import Event, EventKind
from common.ledger.progress import JobState
from common.rungs import Rung
from common.store import open_store
from common.store.base import MARKER
from common.wire.dead_letters import DeadLetter, DeadLetters
from tests.support.jobs import failed, unstable
from tests.support.processes import Fleet, clean_environment, run, run_producer, running_fleet
from tests.support.redis_servers import RedisServer, running_redis
from tests.support.shards import store_shard
from tests.support.swift import S3Server

GOOD = ">a\nMKTAYIAK\n"


def refused(done) -> str:
    """Return the message of a command that was refused properly."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


def untouched(fleet: Fleet) -> bool:
    """Check that nothing is in Redis but what expires, nor in the store but its marker."""
    store = Path(fleet.store_url.removeprefix("file://"))
    files = [path for path in store.rglob("*") if path.is_file() and path != store / MARKER]
    redis = fleet.ledger.redis
    return all(redis.ttl(key) >= 0 for key in redis.keys("*")) and not files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", r"p.fasta is empty", id="empty"),
        pytest.param(b"hello\n", r"p.fasta, line 1: not FASTA", id="no_fasta"),
        pytest.param(
            b">a\nMK\n>b\n>c\nMK\n", r"line 3: record 2 \('b'\) has no sequence", id="gap"
        ),
        pytest.param(
            b">a\nMK\n>b\nMKJ\n", r"line 4: record 2 \('b'\) has 'J' at position 3", id="letter"
        ),
        pytest.param(gzip.compress(GOOD.encode() * 99)[:-9], r"Is the file complete", id="cut"),
    ],
)
def test_bad_input_names_its_place_and_queues_nothing(fleet, tmp_path, content, message):
    (tmp_path / "p.fasta").write_bytes(content)
    text = refused(fleet.producer("submit", tmp_path / "p.fasta"))
    assert re.search(message, text), text
    assert untouched(fleet)


def test_a_missing_file_is_said_before_a_broker_is_looked_for(tmp_path):
    assert "nowhere.fasta: no such file" in refused(
        run_producer("submit", "nowhere.fasta", "--store", tmp_path)
    )


@pytest.mark.parametrize("command", [["submit", "p.fasta"], ["jobs"], ["status"], ["watch", "j"]])
def test_without_a_broker_the_message_says_what_to_start_and_that_local_exists(tmp_path, command):
    (tmp_path / "p.fasta").write_text(GOOD)
    environment = clean_environment(
        VIRNUCPRO_BROKER_URL="redis://user:secret@127.0.0.1:1/0", VIRNUCPRO_STORE=str(tmp_path)
    )
    text = refused(run_producer(*command, environment=environment, cwd=tmp_path))
    assert "No Redis answers at redis://***@127.0.0.1:1/0" in text
    assert "redis-server" in text
    assert "--local" in text


def test_a_fleet_without_a_store_asks_for_one(tmp_path):
    (tmp_path / "p.fasta").write_text(GOOD)
    assert "VIRNUCPRO_STORE" in refused(run_producer("submit", tmp_path / "p.fasta"))


def test_a_store_that_cannot_be_written_is_said_before_anything_is_queued(fleet, tmp_path):
    (tmp_path / "p.fasta").write_text(GOOD)
    (tmp_path / "file").write_text("in the way")
    text = refused(
        fleet.producer("submit", tmp_path / "p.fasta", "--store", tmp_path / "file" / "store")
    )
    assert "cannot write" in text
    assert not fleet.ledger.redis.keys("*")


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "Check AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "Check AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "127.0.0.1:1"),
    ],
    ids=["secret", "key", "endpoint"],
)
def test_wrong_s3_credentials_or_endpoint_are_named(
    sockets, s3: S3Server, tmp_path, change: dict[str, str], hint: str
):
    (tmp_path / "p.fasta").write_text(GOOD)
    with running_fleet(sockets, "s3://embeddings/x", **{**s3.environment(), **change}) as fleet:
        text = refused(fleet.producer("submit", tmp_path / "p.fasta"))
        assert "Store s3://embeddings/x" in text
        assert hint in text
        assert not fleet.ledger.redis.keys("*")


def test_a_bucket_that_is_not_there_is_named(sockets, s3: S3Server, tmp_path):
    (tmp_path / "p.fasta").write_text(GOOD)
    with running_fleet(sockets, "s3://no-such-bucket/x", **s3.environment()) as fleet:
        text = refused(fleet.producer("submit", tmp_path / "p.fasta"))
    assert "Create the bucket first" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "esm3"], "Unknown model 'esm3'"),
        (["--layers", "34"], "Layer 34: this model has layers 0 to 33"),
        (["--overlap", "5"], "overlap applies to windows only: set long to window too"),
        (["--on-instability", "ignore"], "--on-instability"),
        (["--precision", "selective_fp32"], "--precision"),
        (["--include", "median"], "median"),
        (["--batch-tokens", "0"], "--batch-tokens"),
        (["--max-residues", "0"], "--max-residues"),
        (["--no-such-option"], "--no-such-option"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_that_cannot_be_is_refused(fleet, tmp_path, options, message):
    (tmp_path / "p.fasta").write_text(GOOD)
    assert message in refused(fleet.producer("submit", tmp_path / "p.fasta", *options))
    assert untouched(fleet)


def test_a_job_nobody_knows_is_said_to_be_unknown(fleet):
    open_store(fleet.store_url).check_writable()
    for command in (
        *(["status", "no"], ["watch", "no"], ["fetch", "no", "-o", "x.h5"]),
        *(["cancel", "no"], ["quarantine", "no"], ["retry", "no"], ["verify", "no"]),
        ["resume", "no"],
    ):
        assert "no job 'no'" in refused(fleet.producer(*command))


def test_a_local_run_whose_weights_cannot_be_had_says_so_and_leaves_nothing(tmp_path):
    (tmp_path / "p.fasta").write_text(GOOD)
    done = run_producer(
        *("submit", "p.fasta", "--local", "--model", "./nowhere.pt", "-o", "e.h5"), cwd=tmp_path
    )
    assert "nowhere.pt: no such folder or file with weights" in refused(done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.fasta"]


def test_an_output_that_cannot_be_written_is_named_before_any_work(tiny, tmp_path):
    (tmp_path / "p.fasta").write_text(GOOD)
    (tmp_path / "e.h5").mkdir()
    (tmp_path / "file").touch()
    for output, message in (("e.h5", "e.h5 is a folder"), ("file/e.h5", "cannot be written")):
        done = run_producer(
            *("submit", "p.fasta", "--local", "--model", tiny, "-o", output), cwd=tmp_path
        )
        assert message in refused(done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.h5", "file", "p.fasta"]


def test_weights_that_cannot_be_loaded_end_a_local_run_with_the_reason(tmp_path):
    (tmp_path / "p.fasta").write_text(GOOD)
    (tmp_path / "model.pt").write_text("no weights")
    done = run_producer(
        *("submit", "p.fasta", "--local", "--model", "./model.pt", "-o", "e.h5"), cwd=tmp_path
    )
    assert "model.pt: not a checkpoint of fair-esm or ESM C" in refused(done)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "esm3"], "Unknown model 'esm3'"),
        (["--model", "esm2_t6_8M_UR50D", "--gpus", "7"], "this machine has no GPU 7"),
        (["--model", "esm2_t6_8M_UR50D", "--store", "gs://b"], "s3://bucket/prefix"),
        (["--model", "./nowhere.pt"], "nowhere.pt: no such folder or file with weights"),
        (
            ["--model", "random:esm2_t6_8M_UR50D", "--liveness-file", "nowhere/alive"],
            "nowhere/alive cannot be written (No such file or directory)",
        ),
        (
            ["--model", "random:esm2_t6_8M_UR50D", "--ready-file", "nowhere/ready"],
            "--ready-file or VIRNUCPRO_READY_FILE: nowhere/ready cannot be written",
        ),
        (
            ["--model", "random:esm2_t6_8M_UR50D", "--gpus", "required"],
            "--gpus required: no NVIDIA GPU here (CUDA_VISIBLE_DEVICES names none)",
        ),
        ([], "--model"),
    ],
    ids=["model", "gpu", "store", "weights", "liveness", "ready", "required", "nothing"],
)
def test_a_worker_that_cannot_serve_says_why_and_ends(fleet, tmp_path, options, message):
    done = run("workers.cli", "start", *options, environment=fleet.environment, cwd=tmp_path)
    assert message in refused(done)
    assert not fleet.ledger.workers.all()


def test_a_gpu_that_pytorch_cannot_use_is_an_error_if_it_is_required(fleet):
    environment = {**fleet.environment, "CUDA_VISIBLE_DEVICES": "7"}
    words = ("start", "--model", "random:esm2_t6_8M_UR50D", "--gpus", "required")
    done = run("workers.cli", *words, environment=environment, stdin=b"")
    assert done.returncode == 2
    assert "GPU 7 cannot be used by PyTorch" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "%h", "-a", "a" * 254])
def test_a_name_that_cannot_be_a_workers_is_refused(fleet, name):
    environment = {**fleet.environment, "VIRNUCPRO_WORKER_NAME": name}
    words = ("start", "--model", "random:esm2_t6_8M_UR50D")
    text = refused(run("workers.cli", *words, environment=environment))
    assert "VIRNUCPRO_WORKER_NAME: " in text
    assert "Give the pod's name" in text


def test_a_worker_names_what_a_download_left_in_place_of_weights(fleet, tmp_path):
    (tmp_path / "esm2.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    done = run(
        *("workers.cli", "start", "--model", "esm2.pt"), environment=fleet.environment, cwd=tmp_path
    )
    assert "esm2.pt is a Git LFS pointer, not the file itself" in refused(done)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("facebok/esm2_t33_650M_UR50D", "Did you mean esm2_t33_650M_UR50D?"),
        ("https://huggingface.co/facebook/esm2_t6_8M_UR50D", "Did you mean esm2_t6_8M_UR50D?"),
        ("Rostlab/prot_t5_xl_uniref50", "Only models of ESM-2, ESM-1b, ESM-1v"),
        ("folder", "merge_and_unload"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_when_it_is_submitted(
    fleet, tmp_path, model, message
):
    (tmp_path / "p.fasta").write_text(GOOD)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    path = tmp_path / model if model == "folder" else model
    done = run_producer(
        "submit", tmp_path / "p.fasta", "--model", path, environment=fleet.environment
    )
    assert message in refused(done)
    assert fleet.ledger.jobs.names() == []


@pytest.fixture(scope="module")
def locked(tmp_path_factory) -> Iterator[RedisServer]:
    """A Redis with a password."""
    with running_redis(tmp_path_factory.mktemp("redis"), requirepass="s3cret") as server:
        yield server


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:6379", "localhost:6379: it has no redis://, rediss:// or unix:// before it"),
        ("redis://:s3cret@127.0.0.1:{}/name", "its database is not one number"),
        ("sentinel://:s3cret@127.0.0.1:{}", "Sentinel and Cluster are not supported"),
        ("redis://127.0.0.1:{}", "needs a password, or refuses this user and password"),
        ("redis://127.0.0.1:{}?password=s3cret&db=99", "has no database 99"),
    ],
    ids=["scheme", "name", "sentinel", "password", "database"],
)
def test_an_address_of_no_use_is_said_by_every_command_and_nothing_is_staged(
    locked, tmp_path, url, message
):
    (tmp_path / "p.fasta").write_text(GOOD)
    environment = clean_environment(
        VIRNUCPRO_BROKER_URL=url.format(locked.port), VIRNUCPRO_STORE=f"{tmp_path}/store"
    )
    model = ("--model", "random:esm2_t6_8M_UR50D")
    for command in (
        ("producer.cli", "submit", "p.fasta", *model),
        ("producer.cli", "keeper", "--metrics", ""),
        ("workers.cli", "start", *model),
    ):
        text = refused(run(*command, environment=environment, cwd=tmp_path))
        assert message in text
        assert "s3cret" not in text
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "localhost"], "--metrics localhost: "),
        (["--metrics", "127.0.0.1:99999"], "Give a free HOST:PORT, or '' for none."),
        (["--high-water", "0"], "--high-water"),
        (["--keep-days", "-1"], "--keep-days"),
        (["--store", "gs://b"], "s3://bucket/prefix"),
    ],
    ids=["no port", "no such port", "mark", "days", "store"],
)
def test_a_keeper_that_cannot_be_says_why_and_ends(fleet, options, message):
    assert message in refused(fleet.producer("keeper", *options))


def test_a_mark_in_the_environment_that_is_none_is_named(fleet, tmp_path):
    (tmp_path / "p.fasta").write_text(GOOD)
    environment = {**fleet.environment, "VIRNUCPRO_HIGH_WATER": "many"}
    done = run_producer("submit", tmp_path / "p.fasta", environment=environment)
    assert "high_water (or VIRNUCPRO_HIGH_WATER): many is not a whole number" in refused(done)
    assert untouched(fleet)


@pytest.mark.parametrize("options", [["--include"], ["--layers"], ["--layers", "-1", "-1"]])
def test_a_form_that_names_nothing_or_something_twice_is_refused(fleet, tmp_path, options):
    (tmp_path / "p.fasta").write_text(GOOD)
    text = refused(fleet.producer("submit", tmp_path / "p.fasta", *options))
    assert options[0].removeprefix("--") in text
    assert untouched(fleet)


def test_a_job_that_somebody_else_stages_is_left_to_them(fleet, tiny, examples):
    first = fleet.producer("submit", examples, "--model", tiny).stdout.strip()
    fleet.ledger.jobs.forget(first)
    store = Path(fleet.store_url.removeprefix("file://"))
    (store / first / "manifest.json").unlink()
    fleet.ledger.locks.hold_staging(first, "another producer")
    text = refused(fleet.producer("submit", examples, "--model", tiny))
    assert "is being submitted by another producer" in text
    assert "producer watch" not in text  # it would find no such job yet
    assert any((store / first / "input").iterdir())


# --- what went wrong with a job, and what can be done about it ----------------------------------


@pytest.fixture
def troubled(fleet, tmp_path) -> str:
    """A job with a failed batch, and with a quarantined sequence in another batch."""
    (tmp_path / "p.fasta").write_text(">a\nMKTAYIAK\n>b\nGAVL\n")
    model = "random:esm2_t6_8M_UR50D"
    submit = ("submit", tmp_path / "p.fasta", "--model", model, "--batch-tokens", "10")
    job = fleet.producer(*submit).stdout.strip()
    store = open_store(fleet.store_url)
    manifest = read_manifest(store, job)
    fleet.ledger.results.complete(failed(manifest.batch(0)))
    given_up = unstable(manifest.batch(1), 1, precision=Rung.FP32)
    store_shard(store, manifest, 1, rows=[], precision=Rung.FP32)
    add_to_quarantine(store, Quarantine(job=job, batch=1, rows=given_up.quarantined))
    fleet.ledger.results.complete(given_up)
    return job


def test_sequences_without_an_embedding_are_listed_with_the_reason(fleet, troubled):
    done = fleet.producer("quarantine", troubled)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("row 1 'r1' (10 letters): fp32: 3 NaN, 1 Inf, finite values from")
    assert done.stderr == f"1 sequence of job {troubled} without an embedding.\n"


def test_what_failed_is_tried_again_and_what_was_given_up_if_it_is_asked_for(fleet, troubled):
    assert fleet.ledger.jobs.progress(troubled).finished
    first = fleet.producer("retry", troubled)
    assert first.returncode == 0, first.stderr
    assert f"1 of 2 batches of job {troubled} left to do." in first.stderr
    assert fleet.ledger.jobs.progress(troubled).state is JobState.OPEN
    second = fleet.producer("retry", troubled, "--quarantined")
    assert f"2 of 2 batches of job {troubled} left to do." in second.stderr
    assert fleet.producer("quarantine", troubled).stdout == ""


def test_a_job_s_latest_events_are_in_its_status(fleet, troubled):
    for number in range(8):
        event = Event(event=EventKind.RETRY, job=troubled, batch=number, detail=f"said {number}")
        fleet.ledger.events.add(event)
    shown = fleet.producer("status", troubled).stdout
    assert re.findall(r"said (\d)", shown) == ["7", "6", "5", "4", "3"]
    assert "… and 3 earlier events" in shown


def test_dead_letters_are_listed_counted_and_forgotten(fleet):
    for number in range(7):
        DeadLetters(fleet.ledger.redis).add(
            DeadLetter(queue="m.fp16", worker="w", reason=f"no {number}", message="x")
        )
    lines = fleet.producer("dead-letters").stdout.splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [f"no {n}" for n in range(7)][::-1]
    overview = fleet.producer("status").stdout
    assert re.findall(r"no (\d)", overview) == ["6", "5", "4", "3", "2"]
    assert "7 messages that no worker could read" in overview
    assert fleet.producer("dead-letters", "--clear").returncode == 0
    assert fleet.producer("dead-letters").stdout == ""
    assert "no worker could read" not in fleet.producer("status").stdout
