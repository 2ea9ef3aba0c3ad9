"""Checks of this installation: versions of packages, and the keys that messages are signed with."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from common import __version__
from common.checks.check import Check, failed, ok, warning
from common.settings import Settings

#: Packages whose versions are said: those that the fleet's protocol depends on, and others.
PACKAGES = ("celery", "kombu", "redis", "boto3", "h5py", "numpy", "pydantic")

#: Packages of which the fleet needs one series: with others, messages are lost, or time.
SERIES = {"celery": "5.7.", "kombu": "5.7."}


def check_packages(*more: str) -> Iterator[Check]:
    """Name the versions of what is installed.

    Args:
        more: packages beside those that every part of the fleet has.
    """
    found = {name: version_of(name) for name in (*PACKAGES, *more)}
    text = ", ".join(f"{name} {number or 'not installed'}" for name, number in found.items())
    text = f"virnucpro-fleet {__version__}, Python {platform.python_version()}, {text}"
    wrong = [
        f"{name} {series}x"
        for name, series in SERIES.items()
        if not (found[name] or "").startswith(series)
    ]
    if wrong:
        yield failed("packages", text, f"install {' and '.join(wrong)}")
    else:
        yield ok("packages", text)


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_message_key(settings: Settings) -> Iterator[Check]:
    """Say whether messages are signed, and by the names of which keys."""
    keys = settings.message_keys()
    if keys:
        text = f"signs messages with {keys.signs_with}, accepts them with {', '.join(keys.ids)}"
        yield ok("message key", text)
    else:
        yield warning(
            "message key",
            "not set, so that workers compute any batch that is written to their queues",
            "set VIRNUCPRO_MESSAGE_KEY to the same value everywhere (openssl rand -hex 32)",
        )
