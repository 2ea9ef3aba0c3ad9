"""The errors: what they carry survives another process."""

import pickle

import pytest

from common import errors
from common.embeddings.file import EmbeddingFileError
from common.embeddings.lookup import UnknownIdError
from common.errors import VirnucproError
from common.store import StoreError

CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VirnucproError)
]


@pytest.mark.parametrize("kind", [*CLASSES, EmbeddingFileError, StoreError, UnknownIdError])
def test_an_error_comes_whole_out_of_a_pool_of_processes(kind):
    error = kind("what happened")
    error.path, error.line, error.record = "p.fasta", 3, 2
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "what happened"
    assert (copy.path, copy.line, copy.record) == ("p.fasta", 3, 2)


def test_an_unknown_id_keeps_its_id():
    copy = pickle.loads(pickle.dumps(UnknownIdError("No record has the id 'P1'.", "P1")))
    assert (copy.id, str(copy)) == ("P1", "No record has the id 'P1'.")
