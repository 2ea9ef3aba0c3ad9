"""Submitting: what two producers at once do to each other, which is nothing."""

from common.manifest import OutputForm
from common.modeltable import MODELS, ModelSource
from common.rungs import Rung
from common.store import FileStore
from producer.batches import Budget
from producer.source import Source
from producer.staging import Request
from producer.submit import stage_alone

MODEL = "esm2_t6_8M_UR50D"


def test_a_job_that_another_producer_has_just_staged_is_taken_as_it_is(ledger, tmp_path):
    fasta = tmp_path / "p.fasta"
    fasta.write_text(">a\nMKTAYIAK\n>b\nGAVL\n")
    request = Request(
        source=Source(str(fasta)),
        model=ModelSource.parse(MODEL),
        rung=Rung.FP16,
        form=OutputForm(max_residues=1022),
        unknown="error",
        long="truncate",
    )
    store = FileStore(tmp_path / "store")
    arguments = (request, store, ledger, request.fingerprint(), Budget(tokens=10), MODELS[MODEL])
    first = stage_alone(*arguments)
    store.put(f"{first.job}/output/0000000.fp16.h5", b"a shard")
    assert stage_alone(*arguments) == first
    assert store.get(f"{first.job}/output/0000000.fp16.h5") == b"a shard"
