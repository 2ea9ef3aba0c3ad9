"""Checks of the fleet's Redis."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from common.checks.check import Check, failed, ok, warning
from common.checks.rights import Role, commands_of, refused, words_of
from common.wire.address import RedisAddress
from common.wire.first_contact import explain
from common.wire.lookups import open_client
from common.wire.queues import KEY_PREFIX

#: Seconds to wait for one answer.
ANSWER_SECONDS = 4.0

#: The names of the checks after the first, which need an answer.
REST = ("redis persistence", "redis memory", "redis rights", "redis clock")

#: The oldest version that has all commands of the fleet (LMOVE).
OLDEST = (6, 2)

#: Seconds of skew between the clocks from which on it is said, and is too much: beyond, a keeper
#: deletes no old jobs.
SKEW_SECONDS, LARGEST_SKEW_SECONDS = 5.0, 120.0

#: Share of ``maxmemory`` in use from which on it is said.
FULL = 0.9


def check_broker(url: str, role: Role) -> Iterator[Check]:
    """Look at a Redis: that it answers, and is set up as a fleet needs it."""
    address = RedisAddress.parse(url)
    with open_client(
        address,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        try:
            client.ping()
        except (RedisError, OSError) as error:
            if "NOPERM" not in str(error).upper() and "no permissions" not in str(error):
                text, _, advice = explain(address, error).partition("\n")
                yield failed("redis", text, advice.replace("\n", ". "))
                for name in REST:
                    yield warning(name, "not looked at, since Redis does not answer")
                return
        yield server(client, address)
        yield persistence(client)
        yield memory(client)
        yield rights(client, address, role)
        yield clock(client)


def info(client: Redis, section: str) -> dict[str, Any] | None:
    """Return a section of INFO; None if this user, or this server, does not give it."""
    try:
        return dict(client.info(section))
    except ResponseError:
        return None


def server(client: Redis, address: RedisAddress) -> Check:
    found = info(client, "server")
    if found is None:
        return warning(
            "redis",
            f"{address} answers, but this user may not ask what it is",
            "allow INFO (+info)",
        )
    name = "Valkey" if "valkey_version" in found else "Redis"
    version = str(found.get("valkey_version") or found.get("redis_version", "?"))
    mode = str(found.get("redis_mode") or found.get("server_mode") or "standalone")
    what = f"{name} {version} at {address}{' with TLS' if address.tls else ''}"
    if mode != "standalone":
        return failed("redis", f"{what} runs as a {mode}", "name one server that stands alone")
    if (info(client, "replication") or {}).get("role", "master") != "master":
        return failed("redis", f"{what} is a replica, which cannot be written", "name its primary")
    if version_of(str(found.get("redis_version", ""))) < OLDEST:
        return failed("redis", f"{what} is too old", "use Redis 6.2 or newer, or Valkey")
    return ok("redis", f"{what}, {login(client, address)}")


def login(client: Redis, address: RedisAddress) -> str:
    """Return in words as whom Redis knows this process."""
    user = address.username or "default"
    with suppress(ResponseError):
        user = str(client.acl_whoami())
    return f"as user {user}{'' if address.password else ' without a password'}"


def version_of(text: str) -> tuple[int, ...]:
    """Return a version's numbers; of one that is not known, one that is new enough."""
    numbers = [part for part in text.split(".") if part.isdigit()]
    return tuple(map(int, numbers)) if numbers else OLDEST


def persistence(client: Redis) -> Check:
    name, found = "redis persistence", info(client, "persistence")
    if found is None or "aof_enabled" not in found:
        return warning(name, "this Redis does not say whether it keeps what it has", "allow INFO")
    if found.get("aof_enabled") and found.get("aof_last_write_status", "ok") != "ok":
        return failed(
            name, "its append-only file cannot be written", "see its log, and the space on its disk"
        )
    if found.get("rdb_last_bgsave_status", "ok") != "ok":
        return failed(
            name,
            "its last snapshot could not be written, after which Redis may refuse all writes",
            "see its log and the space on its disk, or set save '' and appendonly yes",
        )
    if not found.get("aof_enabled"):
        return warning(
            name,
            "no append-only file: if Redis ends, queues and progress are lost until a keeper has "
            "counted the store again",
            "set appendonly yes",
        )
    return ok(name, "append-only file")


def memory(client: Redis) -> Check:
    name, found = "redis memory", info(client, "memory")
    if found is None or "maxmemory_policy" not in found:
        return warning(name, "this Redis does not say what it does when it is full", "allow INFO")
    policy, limit = str(found["maxmemory_policy"]), int(found.get("maxmemory", 0))
    used = int(found.get("used_memory", 0))
    of_limit = f"of {limit / 2**20:,.0f} MiB" if limit else "without a limit (maxmemory 0)"
    text = f"{used / 2**20:,.0f} MiB used {of_limit}, maxmemory-policy {policy}"
    if policy != "noeviction":
        what = "keys are deleted when it is full, leases and results included"
        advice = "set maxmemory-policy noeviction"
        return failed(name, f"{text}: {what}" if limit else text, advice)
    if limit and used > FULL * limit:
        return warning(name, f"{text}: nearly full", "give it more, or lower VIRNUCPRO_HIGH_WATER")
    return ok(name, text)


def rights(client: Redis, address: RedisAddress, role: Role) -> Check:
    """Try what a role does, without doing it."""
    commands = commands_of(role, address.db)
    lacking = list(refused(client, commands))
    if not lacking:
        return ok("redis rights", f"all {len(commands)} commands that a {role} gives")
    if any(re.search(r"\bkeys?\b", why) for _, why in lacking):
        text = f"this user may not use the keys {KEY_PREFIX}*"
        return failed("redis rights", text, f"ACL SETUSER … ~{KEY_PREFIX}*")
    names = list(dict.fromkeys(words_of(command) for command, _ in lacking))
    rules = dict.fromkeys(rule for name in names for rule in grant(name))
    text = f"this user may not {', '.join(names)}"
    return failed("redis rights", text, f"ACL SETUSER … {' '.join(rules)}")


def grant(name: str) -> tuple[str, ...]:
    """Return the rules of an ACL that allow a command."""
    command, _, channel = name.partition(" ")
    if command in {"PUBLISH", "PSUBSCRIBE"}:
        return f"+{command.lower()}", f"&{channel}"
    return (f"+{name.lower().replace(' ', '|')}",)


def clock(client: Redis) -> Check:
    """Compare the clocks of this machine and of Redis."""
    name = "redis clock"
    before = time.time()
    try:
        seconds, microseconds = client.time()
    except ResponseError:
        return warning(name, "this user may not ask for the time", "allow TIME (+time)")
    after = time.time()
    skew = seconds + microseconds / 1e6 - (before + after) / 2
    text = f"{abs(skew):,.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) <= SKEW_SECONDS:
        return ok(name, text)
    advice = "have both set their clocks (NTP)"
    if abs(skew) <= LARGEST_SKEW_SECONDS:
        return warning(name, text, advice)
    return failed(name, f"{text}: a keeper will delete no old jobs, S3 may refuse requests", advice)
