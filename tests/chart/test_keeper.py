"""The chart's keepers: what they are told, what they may do, and how they are looked after."""

import pytest

from tests.support.chart import env_of, find, find_all, pod_of, render

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


def keeper(values=None, **options):
    pod = pod_of(render(values, **options), "Deployment", "keeper")
    return pod, pod.container("keeper")


def test_two_keepers_are_on_different_nodes_if_possible():
    objects = render()
    deployment = find(objects, "Deployment", "keeper")
    assert deployment["spec"]["replicas"] == 2
    affinity = pod_of(objects, "Deployment", "keeper").spec["affinity"]
    [rule] = affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert rule["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    selected = rule["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selected == deployment["spec"]["selector"]["matchLabels"]


def test_an_affinity_of_the_user_s_takes_the_place_of_the_default():
    own = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    assert keeper({"keeper": {"affinity": own}})[0].spec["affinity"] == own


def test_one_keeper_at_least_stays_when_nodes_are_drained():
    budget = find(render(), "PodDisruptionBudget", "keeper")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_single_keeper_keeps_no_node_from_being_drained():
    budgets = find_all(render({"keeper": {"replicas": 1}}), "PodDisruptionBudget")
    assert not [item for item in budgets if item["metadata"]["name"].endswith("-keeper")]


def test_it_serves_what_its_probes_and_service_ask():
    pod, container = keeper()
    assert env_of(container)["VIRNUCPRO_METRICS"] == "0.0.0.0:9808"
    assert container["ports"] == [{"name": "http", "containerPort": 9808}]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "http"}
        assert container[probe]["timeoutSeconds"] >= 2  # in which it answers whatever Redis does
    assert pod.spec.get("terminationGracePeriodSeconds", 30) >= 30


@pytest.mark.parametrize(
    ("values", "args", "high_water"),
    [
        ({}, ["keeper"], "20000"),
        ({"keepDays": 0.5, "highWater": 5_000_000}, ["keeper", "--keep-days", "0.5"], "5000000"),
        ({"keepDays": 30, "extraArgs": ["--a"]}, ["keeper", "--keep-days", "30", "--a"], "20000"),
    ],
)
def test_values_become_options(values, args, high_water):
    _, container = keeper({"keeper": values})
    assert container["args"] == args
    assert env_of(container)["VIRNUCPRO_HIGH_WATER"] == high_water


@pytest.mark.parametrize("mode", ["keda", "hpa"])
def test_it_may_mark_pods_and_do_nothing_else(mode):
    pool = {"replicas": {"min": 1}}  # fewer are not for the other
    objects = render({"autoscaling": {"mode": mode}, "poolDefaults": pool})
    [role] = find_all(objects, "Role")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}]
    [binding] = find_all(objects, "RoleBinding")
    pod = pod_of(objects, "Deployment", "keeper")
    assert [subject["name"] for subject in binding["subjects"]] == [pod.spec["serviceAccountName"]]
    find(objects, "ServiceAccount", pod.spec["serviceAccountName"])
    assert env_of(pod.container("keeper"))["VIRNUCPRO_POD_COSTS"] == "true"


def test_its_token_is_mounted_where_clients_look_for_it_and_expires():
    pod, container = keeper()
    [mount] = [m for m in container["volumeMounts"] if m["mountPath"] == TOKEN]
    [volume] = [v for v in pod.spec["volumes"] if v["name"] == mount["name"]]
    token, authority, namespace = volume["projected"]["sources"]
    assert token["serviceAccountToken"]["path"] == "token"
    assert token["serviceAccountToken"]["expirationSeconds"] == 3600
    assert authority["configMap"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    assert namespace["downwardAPI"]["items"][0]["path"] == "namespace"
    assert pod.spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("values", [{"mode": "none"}, {"deletionCost": False}])
def test_without_marks_it_has_no_right_and_no_token(values):
    objects = render({"autoscaling": values})
    assert not find_all(objects, "Role") + find_all(objects, "RoleBinding")
    pod = pod_of(objects, "Deployment", "keeper")
    assert "VIRNUCPRO_POD_COSTS" not in env_of(pod.container("keeper"))
    assert not [v for v in pod.spec["volumes"] if "projected" in v]
    worker = pod_of(objects, "Deployment", "esm2-650m")
    assert pod.spec["serviceAccountName"] == worker.spec["serviceAccountName"]


def test_its_own_account_has_the_cloud_s_role_too():
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/fleet"}
    objects = render({"serviceAccount": {"annotations": role}})
    accounts = find_all(objects, "ServiceAccount")
    assert len(accounts) == 2
    assert all(account["metadata"]["annotations"] == role for account in accounts)


def test_an_account_that_the_user_made_gets_the_right():
    objects = render({"serviceAccount": {"create": False, "name": "mine"}})
    assert not find_all(objects, "ServiceAccount")
    assert find_all(objects, "RoleBinding")[0]["subjects"][0]["name"] == "mine"
    assert pod_of(objects, "Deployment", "keeper").spec["serviceAccountName"] == "mine"
