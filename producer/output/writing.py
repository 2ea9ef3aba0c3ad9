"""Writing rows to an output, in any layout: it is complete, or absent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from common.bounded_map import bounded_map
from common.embeddings.arrays import Array, Embeddings
from common.embeddings.file import plain
from common.errors import UserError
from common.job.output_form import OutputForm
from common.rungs import PRECISION_CODES
from common.wire.messages import Instability
from producer.output.chosen import Chosen, rows_with_ids
from producer.output.contents import Block, Contents, Rows
from producer.output.layouts.layout import PlacingWriter
from producer.output.partial import partial_of, remove_abandoned
from producer.output.wanted import Wanted, with_types_of


@dataclass
class Written:
    """What was written."""

    rows: int = 0
    residues: int = 0
    pairs: int = 0
    quarantined: list[Instability] = field(default_factory=list)  # rows without vectors
    #: Number of rows by the code of their precision.
    codes: Array = field(default_factory=lambda: np.zeros(len(PRECISION_CODES), np.int64))

    def add(self, part: Embeddings, quarantined: tuple[Instability, ...]) -> None:
        self.rows += len(part)
        self.residues += int(part.lengths.sum())
        self.pairs += int((part.lengths**2).sum())
        self.quarantined += quarantined
        self.codes += np.bincount(part.precision, minlength=len(self.codes))

    @property
    def precisions(self) -> dict[str, int]:
        """The number of rows with vectors, by precision."""
        return {
            name: int(self.codes[code])
            for name, code in PRECISION_CODES.items()
            if code and self.codes[code]
        }

    @property
    def without_numbers(self) -> int:
        return int(self.codes[PRECISION_CODES["none"]])


class Part(NamedTuple):
    """Rows of a block that are to be written."""

    block: int
    whole: Embeddings  # all rows of the block
    rows: Embeddings
    quarantined: tuple[Instability, ...]


def write_rows(
    rows: Rows,
    output: Path,
    wanted: Wanted,
    *,
    on_rows: Callable[[int], None] = lambda _rows: None,
    before_replacing: Callable[[], None] = lambda: None,
    check_room: Callable[[int], None] = lambda _bytes: None,
) -> Written:
    """Write rows in their order; see ``fetch``.

    Raises:
        UserError: the rows are not what is wanted, or the output cannot be written.
        ValueError: there are more rows or fewer than ``rows`` says.
    """
    layout, form = wanted.layout_at(output), wanted.form_of(rows.form)
    layout.check(form, output)
    chosen = None if wanted.ids is None else rows_with_ids(rows, wanted.ids)
    contents = contents_of(rows, form, wanted, chosen)
    check_room(layout.bytes_of(contents))
    announced = rows.announced() if layout.has_places and chosen is None else None
    partial, written = partial_of(output), Written()
    try:
        with layout.create(partial, contents) as writer:
            remove_abandoned(output, partial)
            placing = cast(PlacingWriter, writer)

            def checked() -> Iterator[Part]:
                """Yield what is to be written, once it is checked and its place is announced."""
                blocks_announced = 0
                for part in parts(rows, form, chosen):
                    more = max(0, part.block + 1 - blocks_announced)
                    for names in islice(announced or (), more):
                        placing.announce(names)
                        blocks_announced += 1
                    rows.check(part.block, part.whole)
                    written.add(part.rows, part.quarantined)
                    check_count(written, contents, at_end=False)
                    yield part._replace(rows=with_types_of(part.rows, contents))

            def write(part: Part) -> int:
                """Write rows to their place; return their number."""
                if announced is None:
                    writer.write(part.rows)
                else:
                    placing.place(part.block, part.rows)
                return len(part.rows)

            for count in bounded_map(write, checked(), 1):  # one is written, the next one checked
                on_rows(count)
            check_count(written, contents, at_end=True)
            if chosen is None:
                rows.check_end()
            without_numbers = {"rows_without_numbers": written.without_numbers}
            writer.finish({**contents.attributes, **without_numbers})
        before_replacing()
        layout.replace(partial, output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}.", path=output) from error
    finally:
        rows.end()
        layout.discard(partial)
    written.quarantined.sort(key=lambda bad: bad.row)
    return written


def contents_of(rows: Rows, form: OutputForm, wanted: Wanted, chosen: Chosen | None) -> Contents:
    """Return what an output is to hold."""
    attributes = {name: plain(value) for name, value in sorted(rows.attributes.items())}
    # They are of the file that the rows come from; the output's own is added at its end.
    attributes.pop("rows_without_numbers", None)
    if chosen is not None:
        attributes["chosen_from"] = rows.records
    return Contents(
        form=form,
        pooled_dtype=wanted.dtype or rows.pooled_dtype,
        records=rows.records if chosen is None else chosen.records,
        residues=rows.residues if chosen is None else chosen.residues,
        pairs=rows.pairs if chosen is None else chosen.pairs,
        dim=rows.dim,
        attributes=attributes,
        origins=rows.origins,
    )


def parts(rows: Rows, form: OutputForm, chosen: Chosen | None) -> Iterator[Part]:
    """Yield the rows of each block, or those that are chosen."""

    def load(index: int) -> tuple[int, Block]:
        return index, rows.block(index, form)

    blocks = rows.begin(None if chosen is None else chosen.rows)
    for index, block in bounded_map(load, blocks, rows.ahead):
        whole, quarantined = rows.whole(index, *block)
        if chosen is None:
            yield Part(index, whole, whole, quarantined)
        elif index in chosen.positions:
            mask = np.zeros(len(whole), np.bool_)
            mask[chosen.positions[index]] = True
            kept = whole.select(mask)
            numbers = set(kept.rows.tolist())
            bad = tuple(bad for bad in quarantined if bad.row in numbers)
            yield Part(index, whole, kept, bad)


def check_count(written: Written, contents: Contents, *, at_end: bool) -> None:
    """Compare what was written with what was announced.

    Raises:
        ValueError: there is more, or at the end less.
    """
    counts = [("rows", written.rows, contents.records)]
    if contents.form.has_residues:
        counts.append(("residues", written.residues, contents.residues))
    if contents.form.contacts:
        counts.append(("pairs of residues", written.pairs, contents.pairs))
    for name, found, expected in counts:
        if found > expected:
            raise ValueError(f"there are more than {expected:,} {name}")
        if at_end and found < expected:
            raise ValueError(f"{expected - found:,} {name} are in no shard")
