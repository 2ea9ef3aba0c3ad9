"""Options and exit codes that several commands share, and the fleet that the options name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.token import Token

from common.advice import CommandLine, advise_commands
from common.paths import user_path
from producer.fleet.fleet import Fleet

EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 2, 130

Broker = Annotated[
    str | None,
    Parameter(help="Redis URL; default: VIRNUCPRO_BROKER_URL, or redis://localhost:6379/0."),
]
StoreUrl = Annotated[
    str | None, Parameter(help="Folder or s3://bucket/prefix; default: VIRNUCPRO_STORE.")
]


def to_path(_type: Any, tokens: Sequence[Token]) -> Path:
    return user_path(tokens[0].value)


#: A path in which ``~`` is the home folder.
OutputPath = Annotated[Path, Parameter(alias="-o", converter=to_path)]

#: A Boolean option without a ``--no-`` form.
Flag = Parameter(negative="")

#: An option that takes several values.
Several = Parameter(
    consume_multiple=True, negative="", show_default=lambda values: " ".join(map(str, values))
)


def named_fleet(*, broker: str | None = None, store: str | None = None) -> Fleet:
    """Return the fleet that the options name, which the commands in messages name too."""
    advise_commands(CommandLine(store=store, broker=broker))
    return Fleet(broker=broker, store=store)
