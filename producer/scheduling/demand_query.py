"""The pool that a question for the demand is about: by its name, or by its model and precision."""

from collections.abc import Mapping
from functools import cache
from typing import Literal, get_args

from common.errors import UserError
from common.model_source import AT, FILE_PREFIX, NAMES, ModelSource, looks_like_path
from common.rungs import Rung, first_rung
from common.wire.queues import pool_name

#: The precisions at which a pool's jobs begin. ``auto`` is none: what it means to a worker depends
#: on whether it has a GPU.
PoolPrecision = Literal["fp16", "bf16", "fp32"]

PRECISIONS: tuple[PoolPrecision, ...] = get_args(PoolPrecision)

#: What a query may have.
PARAMETERS = ("pool", "model", "revision", "precision")


def pool_of_query(query: Mapping[str, str]) -> str | None:
    """Return the pool, or the model whose pools together, a query asks for; None for all.

    The name is built as ``producer submit`` and ``worker start`` build those of queues, so that who
    asks need not know how.

    Raises:
        UserError: the query cannot be answered: why, and what to give instead.
    """
    for name, value in query.items():
        if name not in PARAMETERS:
            raise UserError(f"{name}: not known here. Ask by pool, or by model and precision.")
        if not value:
            raise UserError(f"{name} is empty: give a value, or leave {name} out.")
    if "pool" in query:
        if others := [name for name in PARAMETERS[1:] if name in query]:
            raise UserError(
                f"pool and {others[0]} exclude each other: a pool's name has its model, revision "
                "and precision."
            )
        return query["pool"]
    if "model" in query:
        source = model_of_query(query["model"], query.get("revision"))
        precision = query.get("precision")
        if precision is None:
            return source.queue
        return pool_name(source, rung_of(known_precision(precision)))
    if query:
        raise UserError(f"{next(iter(query))} needs a model: add model=NAME.")
    return None


def model_of_query(model: str, revision: str | None) -> ModelSource:
    """Return the model that a query names.

    Raises:
        UserError: it names none, or only its host would know which.
    """
    path = model.removeprefix(FILE_PREFIX)
    is_name = path.partition(AT)[0].lower() in NAMES
    if looks_like_path(path) and not path.startswith("/") and not is_name:
        raise UserError(f"model={model}: a path must be absolute, as the workers have it.")
    return ModelSource.parse(model, revision)


def known_precision(precision: str) -> PoolPrecision:
    """Return a precision at which jobs begin.

    Raises:
        UserError: it is another word.
    """
    for known in PRECISIONS:
        if precision == known:
            return known
    if precision == "auto":
        raise UserError(
            "precision=auto: a keeper does not know whether the workers have GPUs. Give fp16, at "
            "which jobs of precision auto begin, bf16 or fp32, or leave precision out for all of "
            "them together."
        )
    raise UserError(f"precision={precision}: give fp16, bf16 or fp32.")


@cache
def rung_of(precision: PoolPrecision) -> Rung:
    """Return the rung at which jobs of a precision begin, found out once.

    ``first_rung`` logs a warning where FP16 is forbidden, which an autoscaler's questions must not
    repeat.
    """
    return first_rung(precision)
