"""Submissions of the chart: CronJobs that are run by hand or by a schedule."""

import pytest

from producer.submission.records import as_source
from producer.submission.request import make_request
from producer.submission.submit import Hardware
from tests.support.chart import env_of, find, find_all, pod_of, render
from tests.support.processes import running_fleet

POOLS = [
    {"name": "small", "model": "esm2_t6_8M_UR50D", "revision": "v2", "gpu": {"count": 0}},
    {"name": "large", "model": "esm2_t33_650M_UR50D", "precision": "bf16"},
]
SUBMISSION = {"name": "proteins", "input": "s3://bucket/proteins.fasta"}


def submission(**more):
    objects = render({"pools": POOLS, "submissions": [SUBMISSION | more]})
    job = find(objects, "CronJob", "proteins")
    return job, pod_of(objects, "CronJob", "proteins").container("submit")


def test_without_a_schedule_it_waits_to_be_run_by_hand():
    assert submission()[0]["spec"]["suspend"] is True


def test_with_a_schedule_it_runs_by_itself_and_never_twice_at_once():
    spec = submission(schedule="0 3 * * *")[0]["spec"]
    assert (spec["suspend"], spec["schedule"]) == (False, "0 3 * * *")
    assert spec["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({}, ["--model", "esm2_t6_8M_UR50D", "--precision", "fp32", "--revision", "v2"]),
        ({"pool": "large"}, ["--model", "esm2_t33_650M_UR50D", "--precision", "bf16"]),
        ({"model": "s3://bucket/mine"}, ["--model", "s3://bucket/mine"]),
    ],
)
def test_it_asks_for_what_a_pool_serves(more, options):
    _, container = submission(**more)
    assert container["args"] == ["submit", SUBMISSION["input"], *options]


def test_batches_are_sized_for_cpus_if_a_pool_has_only_those_and_none_is_there_yet(tmp_path):
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">one\nMKVLGAST\n")
    for pool, on_gpu in (("small", False), ("large", True)):
        args = submission(pool=pool)[1]["args"]
        choice = args[args.index("--precision") + 1]
        with as_source(str(fasta)) as source:
            request = make_request(source, "esm2_t6_8M_UR50D", precision=choice)
        assert Hardware.of_fleet([], request.rung).on_gpu is on_gpu


def test_output_and_more_options_come_last():
    _, container = submission(output="s3://bucket/p.h5", args=["--include", "mean"])
    assert container["args"][-4:] == ["--output", "s3://bucket/p.h5", "--include", "mean"]


def test_its_options_are_those_of_the_command(tiny, tmp_path, sockets):
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">one\nMKVLGAST\n")
    pools = [{"name": "tiny", "model": str(tiny), "gpu": {"count": 0}}]
    submissions = [SUBMISSION | {"input": str(fasta), "args": ["--include", "mean", "bos"]}]
    volume = {"extraVolumeMounts": [{"name": "inputs", "mountPath": str(tmp_path)}]}
    objects = render({"pools": pools, "submissions": submissions, "submission": volume})
    container = pod_of(objects, "CronJob", "proteins").container("submit")
    owner = env_of(container)["VIRNUCPRO_OWNER"]
    with running_fleet(sockets, f"file://{tmp_path}/store", VIRNUCPRO_OWNER=owner) as fleet:
        done = fleet.producer(*container["args"])
        assert done.returncode == 0, done.stderr
        assert "proteins@fleet" in fleet.producer("jobs", "--json").stdout


def test_an_error_that_a_person_must_correct_is_not_tried_again():
    policy = submission()[0]["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]
    [fails] = [rule for rule in policy["rules"] if rule["action"] == "FailJob"]
    assert fails["onExitCodes"] == {"containerName": "submit", "operator": "In", "values": [2]}


def test_a_node_that_goes_away_does_not_count_as_an_attempt():
    spec = submission()[0]["spec"]["jobTemplate"]["spec"]
    first = spec["podFailurePolicy"]["rules"][0]
    assert first["action"] == "Ignore"
    assert first["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # as such a policy asks for
    assert spec["backoffLimit"] >= 1


def test_jobs_are_removed_some_time_after_their_end():
    assert submission()[0]["spec"]["jobTemplate"]["spec"]["ttlSecondsAfterFinished"] > 86_400


def test_inputs_may_be_on_a_volume():
    claim = {"name": "inputs", "persistentVolumeClaim": {"claimName": "sequences"}}
    mount = {"name": "inputs", "mountPath": "/inputs", "readOnly": True}
    objects = render(
        {
            "submission": {"extraVolumes": [claim], "extraVolumeMounts": [mount]},
            "submissions": [SUBMISSION | {"input": "/inputs/proteins.fasta"}],
        }
    )
    pod = pod_of(objects, "CronJob", "proteins")
    assert claim in pod.spec["volumes"]
    assert mount in pod.container("submit")["volumeMounts"]


def test_it_knows_how_much_room_its_output_has():
    """A pod that takes more is evicted, and tried again, whatever the disk of its node has."""
    objects = render({"submissions": [SUBMISSION], "submission": {"tmpSizeLimit": "3Gi"}})
    pod = pod_of(objects, "CronJob", "proteins")
    assert env_of(pod.container("submit"))["VIRNUCPRO_TMP_BYTES"] == str(3 * 2**30)
    [tmp] = [volume for volume in pod.spec["volumes"] if volume["name"] == "tmp"]
    assert tmp["emptyDir"]["sizeLimit"] == "3Gi"


def test_commands_in_a_keeper_s_pod_know_how_much_room_it_has():
    pod = pod_of(render(), "Deployment", "keeper")
    assert env_of(pod.container("keeper"))["VIRNUCPRO_TMP_BYTES"] == str(2**30)
    [tmp] = [volume for volume in pod.spec["volumes"] if volume["name"] == "tmp"]
    assert tmp["emptyDir"]["sizeLimit"] == "1Gi"


def test_by_default_there_is_none():
    assert not find_all(render(), "CronJob")
