"""Options and exit codes that several commands share, and the fleet that the options name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.completion import CompletionContext
from cyclopts.token import Token

from common.advice import CommandLine, advise_commands
from common.paths import user_path
from producer.fleet.fleet import Fleet
from producer.fleet.output import Place, place_of
from producer.output.contents import Dtype
from producer.output.layouts.choice import LayoutName

#: The exit codes beside 0, which docs/commands.md has a table of.
EXIT_FAILED, EXIT_USER_ERROR, EXIT_NOT_READY, EXIT_INTERRUPTED = 1, 2, 3, 130

Broker = Annotated[
    str | None,
    Parameter(help="Redis URL; default: VIRNUCPRO_BROKER_URL, or redis://localhost:6379/0."),
]
StoreUrl = Annotated[
    str | None, Parameter(help="Folder or s3://bucket/prefix; default: VIRNUCPRO_STORE.")
]


def job_names(context: CompletionContext) -> list[str]:
    """Return the names that a shell offers for a job: those that Redis knows, newest first."""
    given = context.get("--broker")
    return Fleet(broker=given.raw if given else None).ledger.jobs.names()


#: The name of a job.
JobName = Annotated[str, Parameter(completer=job_names)]


def to_path(_type: Any, tokens: Sequence[Token]) -> Path:
    return user_path(tokens[0].value)


def to_place(_type: Any, tokens: Sequence[Token]) -> Place:
    return place_of(tokens[0].value)


#: A path in which ``~`` is the home folder, or the URL of an object.
OutputPlace = Annotated[Path | str, Parameter(alias="-o", converter=to_place)]

#: The layout of an output.
LayoutOption = Annotated[
    LayoutName | None,
    Parameter(
        help="How the embeddings are laid out; default: by the suffix of -o, of which .h5 is h5. "
        "uniprot is an .h5 with one dataset per id, esm a folder of .pt files as of esm-extract."
    ),
]

#: The type of numbers in an output.
DtypeOption = Annotated[
    Dtype | None,
    Parameter(help="Type of the numbers in the output; default: as computed."),
]

#: A Boolean option without a ``--no-`` form.
Flag = Parameter(negative="")

#: Whether to print JSON.
Json = Annotated[
    bool, Parameter(negative="", help="Print JSON, whose fields docs/formats.md describes.")
]

#: An option that takes several values, which ``values.one_each`` has made several options of.
Several = Parameter(negative="", show_default=lambda values: " ".join(map(str, values)))


#: An option that takes all values that follow it.
Many = Parameter(consume_multiple=True, negative="")


def named_fleet(*, broker: str | None = None, store: str | None = None) -> Fleet:
    """Return the fleet that the options name, which the commands in messages name too."""
    advise_commands(CommandLine(store=store, broker=broker))
    return Fleet(broker=broker, store=store)
