"""What the rows of a batch are called, from the objects that were staged: no shard is read."""

from dataclasses import replace

import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.checksums import checksums
from common.job.copies import read_copies
from common.job.inputs import read_columns
from common.job.manifest import Manifest
from common.job.records import first_word
from common.job.reused import read_reused_names
from common.store import Store


def named_rows(store: Store, manifest: Manifest, index: int) -> Embeddings:
    """Return all rows of a batch in their order, without vectors, and with their checksums.

    Raises:
        StoreError: the store did not give an object.
        UserError: an object is not the one that was staged.
    """
    rows, headers, residues = read_columns(store, manifest, index)
    computed, lengths = len(rows), list(map(len, residues))
    copies = read_copies(store, manifest, index)
    rows += [copy.row for copy in copies]
    headers += [copy.header for copy in copies]
    lengths += [copy.length for copy in copies]
    if manifest.reused_of(index):
        reused = read_reused_names(store, manifest, index)
        rows += reused.rows.tolist()
        headers += reused.headers
        lengths += reused.input_lengths.tolist()
    input_lengths = np.array(lengths, np.int64)
    found = Embeddings(
        rows=np.array(rows, np.int64),
        headers=headers,
        ids=list(map(first_word, headers)),
        lengths=manifest.form.embedded_lengths(input_lengths),
        input_lengths=input_lengths,
        precision=np.zeros(len(rows), np.uint8),
        pooled={},
        residues=None,
    )
    whole = found if len(rows) == computed else Embeddings.in_order([found])
    return replace(whole, checksums=checksums(whole))
