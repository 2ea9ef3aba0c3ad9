"""Checking an input: all that a submission would say of it, without a submission."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Unpack

from pydantic import ValidationError

from common.errors import UserError
from common.model_specs import MODELS, ModelSpec
from common.paths import user_path
from producer.input.batches import BatchSize, cut_batches
from producer.input.survey import BINS, Survey
from producer.output.contents import Contents
from producer.submission.batch_objects import cycle_collection_off
from producer.submission.input_check import (
    BadRecord,
    Bench,
    CheckedSource,
    ComputingTime,
    InputCheck,
    LengthBin,
)
from producer.submission.notes import input_warnings
from producer.submission.records import Input, as_source
from producer.submission.request import DEFAULT_MODEL, Options, Request, make_request, reader_of
from producer.submission.staged_manifest import as_text
from producer.submission.submit import Hardware, budget_for, known_shape


def check(
    source: Input,
    *,
    model: str | Path = DEFAULT_MODEL,
    batch_tokens: int | None = None,
    bench: str | Path | None = None,
    **options: Unpack[Options],
) -> InputCheck:
    """Read an input to its end and say what ``Fleet.submit`` would make of it; queue nothing.

    It needs neither Redis nor a store.

        vf.check("proteins.fasta", model="esm2_t6_8M_UR50D", invalid="skip").rows

    Args:
        source, model, batch_tokens, options: as ``Fleet.submit`` has them.
        bench: a file with what ``worker bench --json`` printed, for the time of computing.

    Raises:
        UserError: bad options; nothing is raised for what is in the input.
    """
    with as_source(source) as opened:
        request = make_request(opened, model, **options)
        return check_request(request, batch_tokens, None if bench is None else user_path(bench))


def check_request(
    request: Request,
    batch_tokens: int | None,
    bench: Path | None,
    on_read: Callable[[int], None] = lambda _records: None,
) -> InputCheck:
    """Read the input of a request; see ``check``.

    Args:
        on_read: called with the number of records of each batch.
    """
    spec = known_shape(request)
    speed = None if bench is None else read_bench(bench, request)
    budget = budget_for(request, spec, Hardware.of_fleet([], request.rung), batch_tokens)
    reader = reader_of(request)
    survey = Survey(reader, request.form.overlap)
    sizes = []
    with cycle_collection_off():
        chunks = survey.chunks(dedup=request.dedup)
        for batch in cut_batches(chunks, budget, request.form, spec):
            sizes.append(batch.size)
            on_read(batch.size.rows)
    return checked(request, survey, sizes, speed)


def checked(
    request: Request, survey: Survey, sizes: list[BatchSize], speed: Bench | None
) -> InputCheck:
    """Return what was found, once everything was read."""
    reader, parts = survey.reader, request.source.parts
    rows, tokens = sum(size.rows for size in sizes), sum(size.tokens for size in sizes)
    residues = sum(size.residues for size in sizes)
    problems = reader.problems
    with_letters = int(survey.lengths.sum())
    return InputCheck(
        accepted=not problems.count and not survey.errors,
        refusals=tuple(survey.errors),
        warnings=tuple(input_warnings(request.model, looks_like_dna=reader.looks_like_dna)),
        model=request.model.text,
        molecule=reader.molecule,
        sources=tuple(
            CheckedSource(name=as_text(part.shown), records=records)
            for part, records in zip(parts, survey.records_of, strict=True)
        ),
        records=reader.read,
        rows=rows,
        skipped=reader.skipped,
        empty=reader.empty,
        short=reader.short,
        bad=dict(problems.kinds.most_common()),
        bad_records=tuple(map(BadRecord.of, problems.first)),
        replaced=reader.replaced,
        rna=reader.rna,
        like_dna=reader.like_dna,
        gapped=survey.gapped,
        gaps=survey.gaps,
        letters=dict(survey.letters.most_common()),
        lower_case=survey.lower_case,
        shortest=survey.shortest,
        longest=survey.longest,
        mean_length=survey.total / with_letters if with_letters else 0.0,
        lengths=tuple(bins_of(survey)),
        duplicate_ids=reader.duplicate_ids(),
        duplicate_sequences=survey.identical,
        computed=sum(size.records for size in sizes),
        long=reader.long_records,
        letters_lost=survey.lost,
        windows=survey.windows,
        residues=residues,
        tokens=tokens,
        batches=len(sizes),
        output_bytes=output_bytes(request, rows, residues, sum(size.pairs for size in sizes)),
        time=None if speed is None else time_of(tokens, speed),
    )


def bins_of(survey: Survey) -> Iterator[LengthBin]:
    """Yield the bins from the first to the last that has a record."""
    filled = survey.lengths.nonzero()[0]
    if filled.size == 0:
        return
    for place in range(filled[0], filled[-1] + 1):
        longest = int(BINS[place + 1]) - 1 if place + 1 < len(BINS) else survey.longest
        records = int(survey.lengths[place])
        yield LengthBin(shortest=int(BINS[place]), longest=longest, records=records)


def output_bytes(request: Request, rows: int, residues: int, pairs: int) -> int | None:
    """Estimate the bytes of an HDF5 file of the embeddings; None if a worker alone knows them."""
    spec = request.model.spec()
    if spec is None:
        return None
    return Contents(
        form=request.form,
        pooled_dtype="float32",
        records=rows,
        residues=residues,
        pairs=pairs,
        dim=spec.dim,
        attributes={},
    ).bytes


def read_bench(path: Path, request: Request) -> Bench:
    """Read what ``worker bench --json`` printed.

    Raises:
        UserError: it is something else, or of a model of another size.
    """
    try:
        bench = Bench.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"bench {path}: cannot be read ({error.strerror}).", path=path) from error
    except ValidationError as error:
        raise UserError(
            f"bench {path}: not what worker bench --json prints. Run worker bench --model "
            f"{request.model.text} --json > {path}",
            path=path,
        ) from error
    spec = request.model.spec()
    if spec is not None and spec.name != bench.model and not same_shape(spec, bench.model):
        raise UserError(
            f"bench {path}: it is of {bench.model}, and the input is for {spec.name}. Run worker "
            f"bench --model {request.model.text} --json",
            path=path,
        )
    return bench


def same_shape(spec: ModelSpec, name: str) -> bool:
    """Return whether a model is as large as the published one of a name."""
    other = MODELS.get(name)
    shape = spec.family, spec.layers, spec.dim, spec.heads
    return other is not None and shape == (other.family, other.layers, other.dim, other.heads)


def time_of(tokens: int, bench: Bench) -> ComputingTime:
    """Return how long some tokens take on one device of a bench."""
    speed = bench.worker / max(1, bench.gpus)
    return ComputingTime(
        machine=bench.machine,
        precision=bench.precision,
        tokens_per_second=speed,
        device_hours=tokens / speed / 3600,
    )
