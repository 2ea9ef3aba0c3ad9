"""Pods of the namespace that this process runs in, through the API of its Kubernetes cluster."""

import json
import os
import re
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from urllib3 import HTTPSConnectionPool, Timeout
from urllib3.exceptions import HTTPError

from common import __version__
from common.errors import UserError

#: Where Kubernetes mounts what a pod asks its API with: ``token``, ``ca.crt`` and ``namespace``.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

#: The annotation with a pod's deletion cost. Of pods that are ready, a ReplicaSet that has too many
#: ends those with the lowest first; without it, the cost is 0.
COST = "controller.kubernetes.io/pod-deletion-cost"

#: Seconds that a connection, and then the answer, may take; together they bound the whole request.
CONNECT_SECONDS, ANSWER_SECONDS = 3.0, 5.0

#: The longest answer that is read: the API answers with the pod, which has less.
ANSWER_BYTES = 2**20

#: The longest part of an answer that an error shows.
SHOWN = 300

#: The names that a pod may have.
POD_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)

#: What a token may have: visible characters of ASCII, as a header takes them.
TOKEN = re.compile(r"[!-~]+")


class PodsError(Exception):
    """The API refused a request, or did not answer."""


class Pods:
    """The pods of one namespace."""

    def __init__(self, host: str, port: int, account: Path) -> None:
        """Name an API; nothing is asked yet.

        Args:
            account: a folder as ``SERVICE_ACCOUNT``.

        Raises:
            OSError: a file is missing, or not what it should be.
        """
        self.host = host
        self.port = port
        self.account = account
        self.namespace = (account / "namespace").read_text().strip()
        if not POD_NAME.fullmatch(self.namespace):
            raise OSError(f"{account / 'namespace'}: not the name of a namespace")
        self._ends = 0.0  # when the request of now must have its answer
        self._token()
        self._pool: HTTPSConnectionPool | None = self._connection()

    @classmethod
    def of_this_pod(cls) -> "Pods":
        """Return the pods of this process's namespace.

        Raises:
            UserError: this is no pod, or it has no token of its service account.
        """
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        try:
            if not host or not port.isdecimal():
                raise OSError("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
            return cls(host, int(port), SERVICE_ACCOUNT)
        except (OSError, ValueError) as error:
            raise UserError(
                "--pod-costs (VIRNUCPRO_POD_COSTS): the API of Kubernetes cannot be asked from "
                f"here: {error}. Omit it outside of Kubernetes; in a pod, have the token of its "
                f"service account mounted at {SERVICE_ACCOUNT} (automountServiceAccountToken)."
            ) from error

    def set_cost(self, pod: str, cost: int) -> bool:
        """Set the deletion cost of a pod; False if there is no such pod.

        Raises:
            PodsError: it could not be set.
        """
        # Through the subresource `status`, since the right to patch `pods` is also one to change
        # their images. There the API keeps spec and ownerReferences as they were and takes other
        # metadata from the request (podStatusStrategy.PrepareForUpdate in
        # pkg/registry/core/pod/strategy.go). Of annotations, validation forbids to change those of
        # AppArmor and of mirror pods alone (ValidatePodSpecificAnnotationUpdates); that nodes may
        # not change labels in this way takes a rule of its own (admitPodStatus of NodeRestriction).
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/status"
        body = json.dumps({"metadata": {"annotations": {COST: str(cost)}}})
        try:
            self._pool = self._pool or self._connection()
            self._ends = time.monotonic() + CONNECT_SECONDS + ANSWER_SECONDS
            answer = self._pool.request(
                "PATCH",
                path,
                body=body,
                headers={
                    "Authorization": f"Bearer {self._token()}",
                    "Content-Type": "application/merge-patch+json",
                    "Accept": "application/json",
                    "User-Agent": f"virnucpro-fleet/{__version__}",
                },
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            said = answer.read(ANSWER_BYTES)
            if len(said) < ANSWER_BYTES:
                answer.release_conn()
            else:  # the connection still has the rest
                answer.close()
        except (HTTPError, OSError, ValueError) as error:
            self._pool = None  # the authority may have been replaced
            # Some of urllib3's errors have a connection before their text.
            reason = error.args[-1] if isinstance(error, HTTPError) and error.args else error
            raise PodsError(f"the API does not answer: {reason}") from error
        if answer.status == 404:
            return False
        if answer.status == 403:
            raise PodsError(
                f"{message_of(said)}. Give the keeper's service account the right to patch "
                f"pods/status in the namespace {self.namespace}"
            )
        if not 200 <= answer.status < 300:
            raise PodsError(f"the API answers {answer.status}: {message_of(said)}")
        return True

    def _connection(self) -> HTTPSConnectionPool:
        context = authorities_of(self.account / "ca.crt")
        seconds_left = self._seconds_left

        class BoundedSocket(ssl.SSLSocket):
            """A connection whose reads end with the request's time, not each after its own."""

            def recv_into(self, *arguments: Any, **options: Any) -> int:
                self.settimeout(seconds_left())
                return super().recv_into(*arguments, **options)

        context.sslsocket_class = BoundedSocket
        # Python 3.13 refuses authorities without a key identifier, as some clusters have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return HTTPSConnectionPool(
            self.host,
            self.port,
            ssl_context=context,
            timeout=Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
            retries=False,
        )

    def _token(self) -> str:
        """Return the token as it is now: Kubernetes replaces it before it expires.

        Raises:
            OSError: there is none. No error shows what the file has.
        """
        path = self.account / "token"
        token = path.read_bytes().decode("ascii", errors="replace").strip()
        if not TOKEN.fullmatch(token):
            raise OSError(f"{path}: no token: it is empty, or has white space or odd characters")
        return token

    def _seconds_left(self) -> float:
        """Return how long the next read may take.

        Raises:
            TimeoutError: the request has had its time.
        """
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return min(left, ANSWER_SECONDS)


def authorities_of(path: Path) -> ssl.SSLContext:
    """Return a context that trusts the authorities of a file and no others.

    Raises:
        OSError: it cannot be read, or has no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=str(path))
    except OSError as error:  # which does not name the file
        raise OSError(f"{path}: no certificates can be read: {error}") from error
    if not context.cert_store_stats()["x509"]:
        raise OSError(f"{path}: no certificate in it")
    return context


def message_of(body: bytes) -> str:
    """Return what an answer of the API says of an error."""
    text = body.decode(errors="replace")
    with suppress(ValueError, LookupError, TypeError):  # from a proxy before the API
        text = str(json.loads(text)["message"])
    return text[:SHOWN]
