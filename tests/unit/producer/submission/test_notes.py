"""What a user is told about a submission: notes on the input, and warnings."""

from common.job.output_form import OutputForm
from common.model_source import ModelSource
from producer.submission.notes import describe_input, input_notes, input_warnings
from tests.support.jobs import manifest_of

MODEL = "esm2_t6_8M_UR50D"


def test_an_input_without_anything_unusual_is_described_in_one_line():
    manifest = manifest_of([3, 5])
    assert describe_input(manifest) == (
        "in.fa: 8 records, 80 residues to embed, in 2 batches for queue "
        "random.esm2_t6_8M_UR50D.fp16."
    )
    assert input_notes(manifest) == []


def test_one_batch_is_not_called_batches():
    assert "in 1 batch for queue" in describe_input(manifest_of([3]))


def test_what_was_done_to_proteins_is_said():
    assert input_notes(manifest_of([3, 5], long=1234, skipped=1, replaced=2, duplicate_ids=3)) == [
        "1,234 records longer than 1,022 residues: only that many of each were kept "
        "(long=error refuses them).",
        "3 records with the id of an earlier record: all are kept, each under its row number.",
        "2 records with unknown letters, embedded as X.",
        "1 record with unknown letters, left out; rows keep their position in the input.",
    ]


def test_dna_is_spoken_of_as_bases_and_windows():
    form = OutputForm(max_residues=10_000, overlap=1000)
    manifest = manifest_of([3, 5], model="dnabert_s", alphabet="dna", form=form, long=7, replaced=2)
    line = describe_input(manifest)
    assert "8 records, 80 bases to embed, in 2 batches for queue dnabert_s.fp16." in line
    assert input_notes(manifest) == [
        "7 records longer than 10,000 bases: embedded in windows of 10,000 that overlap by at "
        "least 1,000, pooled by their tokens.",
        "2 records with unknown letters, embedded as N.",
    ]


def test_dna_for_a_protein_model_is_pointed_out():
    model = ModelSource.parse(MODEL)
    [warning] = input_warnings(model, looks_like_dna=True)
    assert "For DNA give the model dnabert_s." in warning
    assert list(input_warnings(model, looks_like_dna=False)) == []


def test_gaps_rna_and_empty_records_are_said():
    counts = {"empty": 1, "short": 6, "gapped": 2, "stripped": 3, "rna": 4, "like_dna": 5}
    assert input_notes(manifest_of([30], **counts)) == [
        "1 record without a sequence, left out; rows keep their position in the input.",
        "6 records shorter than min_length, left out; rows keep their position in the input.",
        "2 records with gaps (- or .), embedded by tokens of gaps, which the model was not trained "
        "on (gaps=strip removes them).",
        "3 records with gaps (- or .), which were removed.",
        "4 records of RNA: U was read as T.",
        "5 records of what looks like DNA or RNA, though this model is for proteins.",
    ]


def test_records_like_dna_are_a_warning_or_a_note():
    manifest = manifest_of([3], like_dna=2, looks_like_dna=True)
    assert not input_notes(manifest)
    [warning] = input_warnings(ModelSource.parse(MODEL), looks_like_dna=True)
    assert "most records have hardly any letters but A, C, G, T" in warning


def test_random_weights_are_pointed_out():
    random = ModelSource.parse(f"random:{MODEL}")
    [text] = input_warnings(random, looks_like_dna=False)
    assert "random:esm2_t6_8M_UR50D has random weights" in text
