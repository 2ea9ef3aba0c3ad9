"""The pool that a question for the demand is about: by its name, or by its model and precision."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Literal, get_args

from common.errors import UserError
from common.model_source import (
    AT,
    FILE_PREFIX,
    RANDOM_PREFIX,
    S3_PREFIX,
    ModelSource,
    looks_like_path,
)
from common.model_specs import MODELS, NAMES
from common.rungs import Rung, first_rung
from common.wire.queues import pool_name

#: The precisions at which a pool's jobs begin. ``auto`` is none: what it means to a worker depends
#: on whether it has a GPU.
PoolPrecision = Literal["fp16", "bf16", "fp32"]

PRECISIONS: tuple[PoolPrecision, ...] = get_args(PoolPrecision)

#: What a query may have.
PARAMETERS = ("pool", "model", "revision", "precision")

#: What a query may name a model by.
FORMS = (
    f"a model's name ({', '.join(MODELS)}), also with {RANDOM_PREFIX} before it or {AT}REVISION "
    f"after it, the absolute path that workers have, or {S3_PREFIX}bucket/folder"
)


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
    if model.lower().startswith(S3_PREFIX) or path.startswith("/"):
        source = ModelSource.parse(model)
    else:
        bare = path[len(RANDOM_PREFIX) :] if path.lower().startswith(RANDOM_PREFIX) else path
        name = (bare.partition(AT)[0] if bare == path else bare).lower()
        if name not in NAMES:
            if looks_like_path(path):
                raise UserError(f"model={model}: a path must be absolute, as the workers have it.")
            raise UserError(f"model={model}: not known.{meant(name)} Give {FORMS}.")
        source = ModelSource.parse(model)
    if revision is None or revision == source.revision:
        return source
    if source.revision is not None:
        raise UserError(
            f"revision={revision}: {source.text} has one already. Give one of them, or twice the "
            "same."
        )
    if source.text not in MODELS:
        raise UserError(
            f"revision={revision}: only a model on the Hugging Face hub has revisions, and "
            f"{source.text} is none. Leave revision out."
        )
    return ModelSource.parse(source.text, revision)


def meant(name: str) -> str:
    """Return a sentence with the nearest known name; nothing if none is near."""
    near = get_close_matches(name, NAMES, n=1, cutoff=0.75)
    return f" Did you mean {NAMES[near[0]]}?" if near else ""


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
