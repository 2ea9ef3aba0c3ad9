"""What both doctors look at: the broker, the store, the key of messages, the installation."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from common.checks.broker import check_broker
from common.checks.check import Check, Group, failed
from common.checks.installation import check_message_key, check_packages
from common.checks.rights import Role
from common.checks.storage import check_store
from common.checks.weights import check_weights
from common.model_source import ModelSource
from common.settings import Settings

#: Seconds that the weights may take, whose files are read to their end.
WEIGHTS_SECONDS = 60.0


def read_settings(*, broker: str | None, store: str | None) -> Settings:
    """Read the settings; a key of messages that cannot be used is for its own check to say.

    Raises:
        UserError: a setting is not of the right kind.
    """
    given: dict[str, Any] = {"broker_url": broker, "store": store}
    try:
        return Settings(**{name: text for name, text in given.items() if text is not None})
    except ValidationError:
        return Settings.read(broker=broker, store=store)  # with the error in words


def shared_groups(settings: Settings, role: Role, *packages: str) -> list[Group]:
    """Return the checks that both sides need.

    Args:
        packages: names of packages that this side has beside those of both.
    """

    def store() -> Iterator[Check]:
        if settings.store is None:
            yield failed("store", "none is named", "set VIRNUCPRO_STORE, or give --store")
        else:
            yield from check_store(settings.store, role)

    return [
        Group("packages", lambda: check_packages(*packages)),
        Group("message key", lambda: check_message_key(settings)),
        Group("redis", lambda: check_broker(settings.broker_url, role)),
        Group("store", store),
    ]


def weights_group(source: ModelSource, role: Role) -> Group:
    return Group("weights", lambda: check_weights(source, role), WEIGHTS_SECONDS)
