"""Options with several values: ``--layers -1 20`` and ``--layers -1,20``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from common.job.output_form import Include

#: What may be a further value of an option. Anything else after one is an input or a job.
VALUES: Mapping[str, re.Pattern[str]] = {
    "--include": re.compile("|".join(get_args(Include))),
    "--layers": re.compile(r"[+-]?\d+"),
}


def one_each(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments with an option for each of several values.

    ``--include mean bos in.fa`` becomes ``--include mean --include bos in.fa``: an option must not
    take what follows its values.
    """
    return list(rewritten(arguments))


def rewritten(arguments: Sequence[str]) -> Iterator[str]:
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":  # only positional arguments follow
            yield from [argument, *left]
            return
        option, equals, value = argument.partition("=")
        if option not in VALUES or not (equals or left):
            yield argument
            continue
        # The first value is the option's whatever it is, so that a wrong one is refused as such.
        values = [value if equals else left.pop(0)]
        while left and all(VALUES[option].fullmatch(one) for one in left[0].split(",")):
            values.append(left.pop(0))
        for one in ",".join(values).split(","):
            yield f"{option}={one}"
