"""No command shows a password, wherever it was written in an address."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from common.wire.celery_app import make_celery
from tests.support.processes import START_SECONDS, clean_environment, run, run_producer, wait_until
from tests.support.redis_servers import running_redis
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


@pytest.fixture(params=["socket", "host"])
def url_with_login(request, sockets, tmp_path) -> Iterator[str]:
    socket, login = sockets / "redis.sock", f"{SECRET}1:{SECRET}2"
    with running_redis(tmp_path, unixsocket=socket) as server:
        with server.client as client:
            rights = {"enabled": True, "keys": ["*"], "channels": ["*"], "commands": ["+@all"]}
            client.acl_setuser(f"{SECRET}1", passwords=[f"+{SECRET}2"], **rights)
        host = f"redis://{login}@127.0.0.1:{server.port}/0"
        yield host if request.param == "host" else f"unix://{login}@{socket}?db=0"


def test_no_answer_of_a_worker_to_celery_shows_a_login(url_with_login):
    worker = [sys.executable, "-m", "tests.support.endless_worker"]
    with (
        subprocess.Popen(
            [*worker, url_with_login, "q", "1", "0"],
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        make_celery(url_with_login, []) as app,
    ):
        try:
            ask = app.control.inspect(timeout=2)
            wait_until(ask.ping, START_SECONDS)
            answers = [ask.stats(), ask.conf(with_defaults=True), ask.report(), ask.registered()]
        finally:
            process.terminate()
        shown = process.stderr.read()
    assert all(answers)
    assert SECRET not in json.dumps(answers) + shown


@pytest.mark.parametrize("module", ["producer.cli", "workers.cli"])
@pytest.mark.parametrize("form", WRONG_ADDRESSES[::4])
def test_no_doctor_shows_a_password(form, module, tmp_path):
    named = {
        "VIRNUCPRO_BROKER_URL": form.format(SECRET),
        "VIRNUCPRO_STORE": STORES[0].format(SECRET),
        "VIRNUCPRO_MESSAGE_KEY": f"{SECRET},",
    }
    done = run(module, "doctor", environment=clean_environment(**named), cwd=tmp_path)
    assert_silent(done, code=1)


def assert_silent(done, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
