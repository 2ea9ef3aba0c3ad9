"""CSV and TSV: a line per record, a column per number."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.table import PRECISION_NAMES
from common.job.output_form import RECORD_SCORES
from producer.output.contents import Contents
from producer.output.layouts.layout import Layout
from producer.output.partial import locked_file

#: The columns before the vectors.
COLUMNS = ("id", "row", "length", "input_length", "precision", "header")

#: Digits that tell each number of a type from all others.
DIGITS = {"float32": 9, "float16": 5}

#: Bytes of a number as text, with its separator.
NUMBER_BYTES = {"float32": 14, "float16": 10}


class CsvLayout(Layout):
    """A text with commas."""

    name = "csv"
    suffixes = (".csv",)
    holds_residues = False
    scores = RECORD_SCORES
    separator = ","

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["TextWriter"]:
        with locked_file(path) as file:
            yield TextWriter(file, self.separator, contents)

    def bytes_of(self, contents: Contents) -> int:
        numbers = contents.bytes // np.dtype(contents.pooled_dtype).itemsize
        return numbers * NUMBER_BYTES[contents.pooled_dtype]


class TsvLayout(CsvLayout):
    """The same with tabs."""

    name = "tsv"
    suffixes = (".tsv",)
    separator = "\t"


class TextWriter:
    """Writes lines."""

    def __init__(self, file: BinaryIO, separator: str, contents: Contents) -> None:
        self._file = file
        self._separator = separator
        self._kinds = contents.form.pooled_names
        count = len(contents.layers) * contents.dim
        number = f"{separator}%.{DIGITS[contents.pooled_dtype]}g"
        self._numbers = number * count
        self._origins = contents.origins
        columns = COLUMNS if self._origins is None else (*COLUMNS, "source")
        #: Scores, which are FP32 whatever the vectors are: as numbers, and in a row without them.
        self._scores = {
            name: f"{separator}%.{DIGITS['float32']}g" * math.prod(contents.form.score_shape(name))
            for name in contents.form.scores
        }
        named = (*score_names(contents), *names(contents))
        self._write_line(columns, "".join(f"{separator}{name}" for name in named))

    def write(self, part: Embeddings) -> None:
        columns = [(part.scores[name], numbers) for name, numbers in self._scores.items()]
        columns += [(part.pooled[kind], self._numbers) for kind in self._kinds]
        tables = [(values.reshape(len(part), -1), numbers) for values, numbers in columns]
        sources = [] if self._origins is None else self._origins.names_of(part.rows)
        for position, (row, code) in enumerate(
            zip(part.rows.tolist(), part.precision.tolist(), strict=True)
        ):
            texts = (
                *(part.ids[position], row, part.lengths[position], part.input_lengths[position]),
                *(PRECISION_NAMES[code], part.headers[position]),
                *([sources[position]] if sources else []),
            )
            texts_of_numbers = (
                numbers % tuple(values[position].tolist())
                if code
                else self._separator * values.shape[1]
                for values, numbers in tables
            )
            self._write_line(texts, "".join(texts_of_numbers))

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Do nothing: a table has no place for attributes."""

    def _write_line(self, texts: Iterable[object], numbers: str) -> None:
        fields = (quoted(str(text), self._separator) for text in texts)
        self._file.write(f"{self._separator.join(fields)}{numbers}\n".encode())


def quoted(text: str, separator: str) -> str:
    """Return a field of a table, in quotes where it needs them."""
    if separator in text or any(sign in text for sign in '"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def score_names(contents: Contents) -> Iterator[str]:
    """Yield the names of the columns of scores; with several numbers ``class_logits_0``."""
    for name in contents.form.scores:
        shape = contents.form.score_shape(name)
        yield from (f"{name}_{number}" for number in range(*shape)) if shape else [name]


def names(contents: Contents) -> Iterator[str]:
    """Yield the names of the columns of numbers: ``mean_0``, or with several layers ``mean_33_0``.

    The order is that of the vectors.
    """
    layers = contents.layers
    for kind in contents.form.pooled_names:
        for layer in layers:
            prefix = kind if len(layers) == 1 else f"{kind}_{layer}"
            yield from (f"{prefix}_{number}" for number in range(contents.dim))
