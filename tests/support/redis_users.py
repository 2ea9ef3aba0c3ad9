"""A Redis with the users of ``deploy/redis/users.acl``, and with one for the test itself."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from tests.support.redis_servers import HOST, RedisServer, running_redis

DEPLOY = Path(__file__).parents[2] / "deploy" / "redis"

USERS = ("producer", "keeper", "worker", "flower", "keda", "metrics")

#: The password of each user; URLs and logs are searched for the part that all have.
SECRET = "s3cretmarker"
PASSWORDS = {user: f"{SECRET}-of-{user}" for user in USERS}

#: The password of ``default``, who is on for the test.
ADMIN = "the-password-of-the-test"


def make_users(
    environment: Mapping[str, str], *template: Path
) -> "subprocess.CompletedProcess[str]":
    """Run the script that makes an ACL file."""
    return subprocess.run(
        ["sh", str(DEPLOY / "make-users.sh"), *map(str, template)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def acl_file(folder: Path) -> Path:
    """Write an ACL file with all users."""
    made = make_users({f"{user.upper()}_PASSWORD": PASSWORDS[user] for user in USERS})
    assert made.returncode == 0, made.stderr
    first, _, rest = made.stdout.partition("\n")
    assert first == "user default off"
    path = folder / "users.acl"
    path.write_text(f"user default on >{ADMIN} ~* &* +@all\n{rest}")
    return path


@contextmanager
def redis_with_users(
    folder: Path, program: str | None = None, **options: object
) -> Iterator[RedisServer]:
    """Run a Redis with all users; None: the embedded server."""
    options |= {"aclfile": acl_file(folder), "requirepass": ADMIN}
    with running_redis(folder, program=program, **options) as server:
        yield server


def url_of(user: str, port: int, *, authority: Path | None = None) -> str:
    """Return a user's address of a server; with an authority, its TLS port's."""
    login = f"{user}:{PASSWORDS[user]}@{HOST}:{port}/0"
    return f"redis://{login}" if authority is None else f"rediss://{login}?ssl_ca_certs={authority}"


def client_of(user: str, server: RedisServer) -> Redis:
    return Redis.from_url(url_of(user, server.port), decode_responses=True)
