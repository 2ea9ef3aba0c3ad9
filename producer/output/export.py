"""A file of embeddings to another output."""

from collections.abc import Callable
from pathlib import Path

from common.embeddings.file import EmbeddingFile
from common.errors import UserError
from producer.output.fetch import Fetched
from producer.output.file_rows import FileRows
from producer.output.wanted import Wanted
from producer.output.writing import write_rows


def export(
    file: EmbeddingFile,
    output: Path,
    wanted: Wanted,
    *,
    before_replacing: Callable[[], None] = lambda: None,
    check_room: Callable[[int], None] = lambda _bytes: None,
) -> Fetched:
    """Write the rows of an open file to another output, block by block.

    Raises:
        UserError: the file is damaged, or the output cannot be written.
    """
    rows = FileRows(file)
    try:
        written = write_rows(
            rows, output, wanted, before_replacing=before_replacing, check_room=check_room
        )
    except ValueError as error:
        raise UserError(
            f"{file.path} is damaged ({error}); if it is a job's, fetch it again.", path=file.path
        ) from error
    return Fetched(
        output,
        written.rows,
        written.precisions,
        [],
        rows.attributes.get("warning"),
        rows.attributes.get("partial"),
    )
