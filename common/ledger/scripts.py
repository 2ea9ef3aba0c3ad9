"""The Lua scripts, by which alone the ledger is changed."""

from importlib.resources import files

from redis import Redis
from redis.commands.core import Script


def load_scripts(redis: Redis, names: tuple[str, ...]) -> dict[str, Script]:
    """The scripts of these names, ready to be called on ``redis``."""
    folder = files("common.ledger") / "lua"
    return {name: redis.register_script((folder / f"{name}.lua").read_text()) for name in names}
