"""The Lua scripts that change the ledger."""

from importlib.resources import files

from redis import Redis
from redis.commands.core import Script

#: An argument of a script.
Argument = str | int | float | bytes

#: The file that the text of a script begins with.
PRELUDES = {"complete": "counting", "reopen": "counting"}


def load_scripts(redis: Redis, names: tuple[str, ...]) -> dict[str, Script]:
    """Return the scripts of these names, ready to be called on ``redis``."""
    return {name: redis.register_script(script_text(name)) for name in names}


def script_text(name: str) -> str:
    """Return the whole text of a script."""
    prelude = script_text(PRELUDES[name]) if name in PRELUDES else ""
    return prelude + (files("common.ledger") / "lua" / f"{name}.lua").read_text()
