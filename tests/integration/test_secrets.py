"""No command shows a password, wherever it was written in an address."""

import pytest

from tests.support.processes import clean_environment, run, run_producer
from tests.support.secrets import ENDPOINTS, SECRET, STORES, WRONG_ADDRESSES

JOB = "in-0123456789ab"
COMMANDS = {
    "submit": ["submit", "-", "--model", "random:esm2_t6_8M_UR50D"],
    **{verb: [verb, JOB] for verb in ("status", "watch", "cancel", "resume", "retry")},
    **{verb: [verb] for verb in ("jobs", "keeper", "dead-letters")},
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("form", WRONG_ADDRESSES)
def test_no_command_shows_a_password_of_redis(form, words, tmp_path):
    broker = form.format(SECRET)
    named = {"VIRNUCPRO_STORE": str(tmp_path), "VIRNUCPRO_BROKER_URL": broker}
    assert_silent(run_producer(*words, environment=clean_environment(**named), cwd=tmp_path))


@pytest.mark.parametrize("form", ["redis://{}@127.0.0.1:1", "redis://user:{}@127.0.0.1:1"])
def test_neither_does_one_that_finds_no_redis(form, tmp_path):
    arguments = ("status", f"--broker={form.format(SECRET)}")
    assert_silent(run_producer(*arguments, cwd=tmp_path))


@pytest.mark.parametrize("verb", ["fetch", "verify", "quarantine", "submit"])
@pytest.mark.parametrize("form", STORES)
def test_no_command_shows_a_password_in_the_name_of_a_store(form, verb, tmp_path):
    words = [verb, "-" if verb == "submit" else JOB, f"--store={form.format(SECRET)}"]
    assert_silent(run_producer(*words, cwd=tmp_path))


@pytest.mark.parametrize("form", ENDPOINTS)
def test_no_command_shows_a_password_in_the_endpoint_of_s3(form, tmp_path):
    environment = clean_environment(AWS_ENDPOINT_URL_S3=form.format(SECRET))
    words = ["verify", JOB, "--store=s3://bucket/x"]
    assert_silent(run_producer(*words, environment=environment, cwd=tmp_path))


@pytest.mark.parametrize("form", [WRONG_ADDRESSES[0], WRONG_ADDRESSES[1]])
def test_a_worker_shows_no_password(form, tmp_path):
    broker = form.format(SECRET)
    named = {"VIRNUCPRO_STORE": str(tmp_path), "VIRNUCPRO_BROKER_URL": broker}
    words = ["start", "--model", "random:esm2_t6_8M_UR50D"]
    assert_silent(run("workers.cli", *words, environment=clean_environment(**named)))


def assert_silent(done) -> None:
    assert done.returncode == 2, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
