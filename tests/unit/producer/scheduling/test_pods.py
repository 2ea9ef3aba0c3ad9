"""The client of Kubernetes: one PATCH for a pod, over TLS, with the token of the moment."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import UserError
from producer.scheduling import pods as module
from producer.scheduling.pods import COST, POD_NAME, Pods, PodsError
from tests.support.kubernetes_api import HOST, NAMESPACE, KubernetesApi, kubernetes_api, served
from tests.support.tls import make_signed_certificate

POD = "worker-7c5d8-x2x4z"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    with kubernetes_api(tmp_path, [POD]) as running:
        yield running


@pytest.fixture
def pods(api: KubernetesApi) -> Pods:
    return Pods(HOST, api.port, api.account)


def test_a_cost_is_one_patch_of_the_status_that_leaves_other_annotations(api, pods):
    api.pods[POD]["other"] = "kept"
    assert pods.set_cost(POD, 1)
    assert api.pods[POD] == {"other": "kept", COST: "1"}
    assert pods.set_cost(POD, 0)
    assert api.pods[POD] == {"other": "kept", COST: "0"}
    assert api.asked == [f"PATCH /api/v1/namespaces/{NAMESPACE}/pods/{POD}/status"] * 2
    assert api.connections == 1


def test_a_worker_that_is_no_pod_is_no_error(api, pods):
    assert not pods.set_cost("gpu-host-3", 1)
    assert api.patched == []


def test_a_token_that_kubernetes_replaced_is_read_anew(api, pods):
    assert pods.set_cost(POD, 1)
    api.rotate_token("token-2")
    assert pods.set_cost(POD, 0)
    api.rotate_token("token-3", known=False)
    with pytest.raises(PodsError, match="401: Unauthorized"):
        pods.set_cost(POD, 1)
    assert api.cost(POD) == 0


def test_a_server_of_another_authority_gets_no_token(api, pods, tmp_path):
    (tmp_path / "other").mkdir()
    authority, _ = make_signed_certificate(tmp_path / "other")
    (api.account / "ca.crt").write_bytes(authority.read_bytes())
    stranger = Pods(HOST, api.port, api.account)
    with pytest.raises(PodsError, match="certificate verify failed"):
        stranger.set_cost(POD, 1)
    assert api.asked == []


def test_an_authority_that_was_replaced_is_read_anew_after_one_failure(tmp_path):
    with kubernetes_api(tmp_path, [POD]) as api:
        pods = Pods(HOST, api.port, api.account)
        assert pods.set_cost(POD, 1)
    (tmp_path / "other").mkdir()
    authority, certificate = make_signed_certificate(tmp_path / "other")
    (api.account / "ca.crt").write_bytes(authority.read_bytes())
    with served(api, certificate):
        with pytest.raises(PodsError):
            pods.set_cost(POD, 0)
        assert pods.set_cost(POD, 0)
    assert api.cost(POD) == 0


def test_without_the_right_the_error_names_it(api, pods):
    api.has_right = False
    with pytest.raises(PodsError, match=f"is forbidden.*patch pods/status in the.* {NAMESPACE}"):
        pods.set_cost(POD, 1)


@pytest.mark.parametrize("status", [301, 409, 422, 429, 500, 503])
def test_another_answer_is_an_error_with_its_reason(api, pods, status):
    api.status = status
    with pytest.raises(PodsError, match=f"{status}: the double was told to fail"):
        pods.set_cost(POD, 1)
    assert len(api.asked) == 1


def test_an_api_that_hangs_or_is_gone_is_an_error_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    with kubernetes_api(tmp_path, [POD]) as api:
        pods = Pods(HOST, api.port, api.account)
        api.hang = 2.0
        started = time.monotonic()
        with pytest.raises(PodsError, match="does not answer"):
            pods.set_cost(POD, 1)
        assert time.monotonic() - started < api.hang
        assert len(api.asked) == 1
    with pytest.raises(PodsError, match="does not answer"):
        pods.set_cost(POD, 1)


def test_a_token_that_cannot_be_read_is_an_error(api, pods):
    (api.account / "token").unlink()
    with pytest.raises(PodsError, match="token"):
        pods.set_cost(POD, 1)
    assert api.asked == []


@pytest.mark.parametrize("trickled", ["head", "body"])
def test_an_api_that_sends_slowly_is_an_error_in_time(api, pods, trickled, monkeypatch):
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    api.trickle, api.trickled = 0.05, trickled
    started = time.monotonic()
    with pytest.raises(PodsError, match="does not answer"):
        pods.set_cost(POD, 1)
    assert time.monotonic() - started < 3
    api.trickle = 0.0
    assert pods.set_cost(POD, 0)


def test_of_a_long_answer_only_the_beginning_is_read(api, pods, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_BYTES", 1000)
    api.padding = 2000
    assert pods.set_cost(POD, 1)
    assert pods.set_cost(POD, 0)
    assert api.connections == 2  # the rest of an answer is not taken for the next


@pytest.mark.parametrize("token", ["secret\nsecret", "secret secret", "secret\x00", "sécret", ""])
def test_a_token_that_is_none_is_refused_and_not_shown(api, pods, token):
    (api.account / "token").write_text(token)
    for asks in (lambda: pods.set_cost(POD, 1), lambda: Pods(HOST, api.port, api.account)):
        with pytest.raises((PodsError, OSError), match="token: no token") as caught:
            asks()
        assert "cret" not in str(caught.value)
    assert api.asked == []


@pytest.mark.parametrize("text", ["", "# none\n"])
def test_without_an_authority_no_server_is_trusted(api, text):
    (api.account / "ca.crt").write_text(text)
    with pytest.raises(OSError, match=r"ca\.crt: no certificate"):
        Pods(HOST, api.port, api.account)


def test_a_comment_beside_the_authority_may_have_any_characters(api):
    path = api.account / "ca.crt"
    path.write_bytes("# Autorité\n".encode() + path.read_bytes())
    assert Pods(HOST, api.port, api.account).set_cost(POD, 1)


def test_a_namespace_that_is_no_name_is_refused(api):
    (api.account / "namespace").write_text("../nodes")
    with pytest.raises(OSError, match="not the name of a namespace"):
        Pods(HOST, api.port, api.account)


@pytest.fixture
def in_a_pod(api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", api.account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", HOST)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))


@pytest.mark.usefixtures("in_a_pod")
def test_in_a_pod_everything_is_where_kubernetes_puts_it(api):
    assert Pods.of_this_pod().set_cost(POD, 1)
    assert api.cost(POD) == 1


@pytest.mark.usefixtures("in_a_pod")
@pytest.mark.parametrize(
    "lacking",
    ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "token", "ca.crt", "namespace"],
)
def test_elsewhere_it_is_said_what_is_lacking(api, lacking, monkeypatch):
    if lacking.isupper():
        monkeypatch.delenv(lacking)
    else:
        (api.account / lacking).unlink()
    with pytest.raises(UserError, match=rf"(?s)--pod-costs.*{lacking}.*Omit it outside"):
        Pods.of_this_pod()


@pytest.mark.parametrize("name", ["a", "worker-0", "worker.pool-1", "0a", "a" * 253])
def test_names_of_pods(name):
    assert POD_NAME.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    ["", "A", "a_b", "-a", "a-", ".a", "a..b", "a/b", "a/../b", "..", "a%2fb", "a\n", "a" * 254],
)
def test_no_other_name_is_asked_for(name):
    assert not POD_NAME.fullmatch(name)
