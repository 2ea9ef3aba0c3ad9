"""Options and exit codes that several commands share."""

from typing import Annotated

from cyclopts import Parameter

EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 2, 130

Broker = Annotated[
    str | None,
    Parameter(help="Redis URL; default: VIRNUCPRO_BROKER_URL, or redis://localhost:6379/0."),
]
StoreUrl = Annotated[
    str | None, Parameter(help="Folder or s3://bucket/prefix; default: VIRNUCPRO_STORE.")
]

#: A Boolean option without a ``--no-`` form.
Flag = Parameter(negative="")

#: An option that takes several values.
Several = Parameter(
    consume_multiple=True, negative="", show_default=lambda values: " ".join(map(str, values))
)
