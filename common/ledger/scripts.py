"""The Lua scripts that change the ledger."""

from importlib.resources import files

from redis import Redis
from redis.commands.core import Script

#: An argument of a script.
Argument = str | int | float | bytes


def load_scripts(redis: Redis, names: tuple[str, ...]) -> dict[str, Script]:
    """Return the scripts of these names, ready to be called on ``redis``."""
    folder = files("common.ledger") / "lua"
    return {name: redis.register_script((folder / f"{name}.lua").read_text()) for name in names}
