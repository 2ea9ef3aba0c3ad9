"""Fetch: shards of a real folder to one file, in input order, every row with its precision."""

from collections.abc import Iterable, Sequence
from itertools import islice

import h5py
import numpy as np
import pytest

from common.embeddings.arrays import Embeddings
from common.errors import UserError
from common.job.layout import input_key, output_prefix, quarantine_key, shard_key
from common.job.manifest import Manifest, write_manifest
from common.job.output_form import PAIR_SCORES, RESIDUE_SCORES, OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record
from common.rungs import PRECISION_CODES, Rung
from common.store import FileStore
from common.wire.messages import Instability
from producer.output.fetch import fetch
from producer.output.verify import verify
from producer.terminal.report import report_fetched
from tests.support.jobs import SEEN, manifest_of
from tests.support.shards import store_inputs, store_shard
from tests.support.stores import folder_store

DIM = 4
MAX_RESIDUES = 5
MEAN = OutputForm(max_residues=MAX_RESIDUES)
FORMS = {
    "mean": MEAN,
    "bos": OutputForm(include=("bos",), max_residues=MAX_RESIDUES),
    "per residue": OutputForm(include=("mean", "per_residue"), max_residues=MAX_RESIDUES),
    "layers": OutputForm(
        include=("mean", "per_residue"),
        layers=(-1, 2),
        residue_dtype="float32",
        max_residues=MAX_RESIDUES,
    ),
    "scores": OutputForm(
        include=("pseudo_perplexity_unmasked", "logits"), max_residues=MAX_RESIDUES
    ),
    "all": OutputForm(
        include=("mean", "per_residue", "logits", "entropy", "pseudo_perplexity_unmasked"),
        max_residues=MAX_RESIDUES,
    ),
    "contacts": OutputForm(include=("bos", "contacts", "entropy"), max_residues=MAX_RESIDUES),
}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)

#: Rows 2 and 5 were skipped by the reader; row 4 is longer than the limit.
RECORDS = [
    Record(row, f"id{row} é", "MKVLGAST"[:length])
    for row, length in zip([0, 1, 3, 4, 6, 7, 8], [3, 1, 5, 8, 2, 4, 5], strict=True)
]
BATCH_RECORDS = [3, 1, 3]


class Job:
    """A staged job, whose shards a test writes as workers would."""

    def __init__(self, store: FileStore, form: OutputForm) -> None:
        self.store = store
        rest = iter(RECORDS)
        self.batches = [list(islice(rest, size)) for size in BATCH_RECORDS]
        residues = sum(form.embedded(len(record.residues)) for record in RECORDS)
        pairs = sum(form.embedded(len(record.residues)) ** 2 for record in RECORDS)
        self.manifest: Manifest = manifest_of(
            BATCH_RECORDS, form=form, residues=residues, pairs=pairs
        )
        self.manifest = store_inputs(store, self.manifest, RECORDS)
        write_manifest(store, self.manifest)

    def compute(
        self,
        index: int,
        *,
        rung: Rung = Rung.FP16,
        rows: Sequence[int] | None = None,
        precision: Rung | None = None,
        weights: str = "w",
        sealed: bool = True,
    ) -> Embeddings:
        """Write a batch's shard at a rung, with all of its rows or only some."""
        return store_shard(
            self.store,
            self.manifest,
            index,
            dim=DIM,
            rung=rung,
            rows=rows,
            precision=precision,
            weights=weights,
            sealed=sealed,
        )

    def compute_all(self) -> list[Embeddings]:
        return [self.compute(index) for index in range(len(self.batches))]

    def quarantine(self, index: int, rows: Iterable[int]) -> tuple[Instability, ...]:
        """Note rows of a batch that no rung could embed."""
        bad = tuple(
            Instability(row=row, id=f"id{row}", length=3, seen={Rung.FP32: SEEN}) for row in rows
        )
        add_to_quarantine(self.store, Quarantine(job=self.manifest.job, batch=index, rows=bad))
        return bad


@pytest.fixture
def job_of(tmp_path):
    return lambda form: Job(folder_store(tmp_path / "store"), form)


@pytest.fixture
def job(job_of) -> Job:
    return job_of(MEAN)


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    return folder / "out.h5"


def contents(path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def residues_of(found: dict[str, np.ndarray], position: int) -> np.ndarray:
    """A record's residues, as a user finds them."""
    start, end = found["offsets"][position : position + 2]
    return found["residues"][start:end]


# --- one rung -----------------------------------------------------------------------------------


@every_form
def test_shards_follow_each_other_in_input_order(job_of, output, form):
    job = job_of(form)
    parts = list(reversed([job.compute(index) for index in (2, 1, 0)]))
    fetched = fetch(job.store, job.manifest, output)
    found = contents(output)
    assert found["rows"].tolist() == [record.row for record in RECORDS]
    assert [text.decode() for text in found["headers"]] == [record.header for record in RECORDS]
    assert [text.decode() for text in found["ids"]] == [record.id for record in RECORDS]
    assert found["input_lengths"].tolist() == [len(record.residues) for record in RECORDS]
    assert found["lengths"].tolist() == [min(len(r.residues), MAX_RESIDUES) for r in RECORDS]
    for name in form.pooled_names:
        expected = np.concatenate([part.pooled[name] for part in parts])
        assert np.array_equal(found[name], expected)
    if form.per_residue:
        assert found["residues"].dtype == form.residue_dtype
        assert np.array_equal(found["residues"], np.concatenate([p.residues for p in parts]))
    for name in form.scores:
        assert np.array_equal(found[name], np.concatenate([part.scores[name] for part in parts]))
    assert (fetched.path, fetched.rows, fetched.quarantined) == (output, len(RECORDS), [])


def test_a_file_says_what_its_numbers_come_from(job, output):
    job.compute_all()
    fetched = fetch(job.store, job.manifest, output)
    with h5py.File(output) as file:
        attributes = dict(file.attrs)
    assert (attributes["weights"], attributes["model"]) == ("w", job.manifest.model)
    assert (attributes["input"], attributes["rows_without_numbers"]) == ("in.fa", 0)
    assert fetched.warning == attributes["warning"] == "nothing"


def test_a_file_says_what_was_changed_in_the_input_and_that_it_looks_like_dna(job, output):
    job.compute_all()
    counts = {"gapped": 2, "rna": 1, "like_dna": 7}
    report = job.manifest.report.model_copy(update={**counts, "looks_like_dna": True})
    fetched = fetch(job.store, job.manifest.model_copy(update={"report": report}), output)
    with h5py.File(output) as file:
        found = {name: int(n) for name, n in file.attrs.items() if name.startswith("records_")}
        assert found == {f"records_{name}": count for name, count in counts.items()}
        assert file.attrs["warning"] == fetched.warning
    assert "most records have hardly any letters but A, C, G, T, U and N" in fetched.warning


def test_what_is_true_of_one_shard_alone_is_not_said_of_the_file(job, output):
    job.compute_all()
    fetch(job.store, job.manifest, output)
    with h5py.File(output) as file:
        assert not {"precision", "tokens"} & set(file.attrs)


def test_progress_is_told_batch_by_batch(job, output):
    job.compute_all()
    told: list[int] = []
    fetch(job.store, job.manifest, output, told.append)
    assert told == BATCH_RECORDS


def test_an_earlier_output_is_replaced(job, output):
    output.write_text("something else")
    job.compute_all()
    fetch(job.store, job.manifest, output)
    assert len(contents(output)["rows"]) == len(RECORDS)
    assert [path.name for path in output.parent.iterdir()] == ["out.h5"]


# --- several rungs ------------------------------------------------------------------------------


@every_form
def test_rows_come_from_the_rung_that_had_numbers_for_them(job_of, output, form):
    job = job_of(form)
    first = job.compute(0, rung=Rung.FP16, rows=[0, 3])
    second = job.compute(0, rung=Rung.FP32, rows=[1])
    job.compute(1)
    job.compute(2)
    fetch(job.store, job.manifest, output)
    found = contents(output)
    codes = [PRECISION_CODES[rung] for rung in ("fp16", "fp32", "fp16")]
    assert found["precision"][:3].tolist() == codes
    for name in form.pooled_names:
        expected = [first.pooled[name][0], second.pooled[name][0], first.pooled[name][1]]
        assert np.array_equal(found[name][:3], expected)
    if form.per_residue:
        assert np.array_equal(residues_of(found, 0), first.residues[:3])
        assert np.array_equal(residues_of(found, 1), second.residues)
        assert np.array_equal(residues_of(found, 2), first.residues[3:])
    for name in form.scores:
        one, other = first.scores[name], second.scores[name]
        # The first record has three residues.
        cut = 9 if name in PAIR_SCORES else 3 if name in RESIDUE_SCORES else 1
        expected = np.concatenate([one[:cut], other, one[cut:]])
        assert np.array_equal(found[name][: len(expected)], expected)


@every_form
def test_rows_of_all_rungs_are_merged_in_input_order_each_with_its_precision(job_of, output, form):
    job = job_of(form)
    fp16 = job.compute(0, rung=Rung.FP16, rows=[3])
    selective = job.compute(0, rung=Rung.SELECTIVE_FP32, rows=[0])
    fp32 = job.compute(0, rung=Rung.FP32, rows=[1])
    job.compute(1)
    job.compute(2, rows=[])
    job.compute(2, rung=Rung.SELECTIVE_FP32, rows=[6, 8])
    job.compute(2, rung=Rung.FP32, rows=[7])
    fetched = fetch(job.store, job.manifest, output)
    found = contents(output)
    by_row = ["selective_fp32", "fp32", "fp16", "fp16", "selective_fp32", "fp32", "selective_fp32"]
    assert found["precision"].tolist() == [PRECISION_CODES[rung] for rung in by_row]
    assert found["rows"].tolist() == [record.row for record in RECORDS]
    assert fetched.quarantined == []
    for position, part in enumerate([selective, fp32, fp16]):
        for name in form.pooled_names:
            assert np.array_equal(found[name][position], part.pooled[name][0])
        if form.per_residue:
            assert np.array_equal(residues_of(found, position), part.residues)


def test_a_row_has_the_precision_that_it_was_computed_in_whatever_the_rung_was(job, output):
    job.compute(0, precision=Rung.FP32)
    job.compute(1)
    job.compute(2)
    fetch(job.store, job.manifest, output)
    codes = [PRECISION_CODES[rung] for rung in ("fp32", "fp32", "fp32", "fp16")]
    assert contents(output)["precision"][:4].tolist() == codes


def test_windows_have_the_whole_length_of_their_record(job_of, output):
    job = job_of(OutputForm(max_residues=MAX_RESIDUES, overlap=2))
    job.compute(0, rows=[0, 1])
    job.compute(0, rung=Rung.SELECTIVE_FP32, rows=[3])
    job.compute(1, rows=[])
    job.compute(1, rung=Rung.SELECTIVE_FP32)
    job.compute(2)
    fetch(job.store, job.manifest, output)
    found = contents(output)
    assert found["lengths"].tolist() == [len(record.residues) for record in RECORDS]
    assert found["lengths"].tolist() == found["input_lengths"].tolist()


def test_a_row_that_two_rungs_have_is_that_of_the_higher(job, output):
    fp32 = job.compute(0, rung=Rung.FP32, rows=[0, 1])
    selective = job.compute(0, rung=Rung.SELECTIVE_FP32, rows=[1, 3])
    fp16 = job.compute(0, rung=Rung.FP16)
    job.compute(1)
    job.compute(2)
    fetch(job.store, job.manifest, output)
    found = contents(output)
    codes = [PRECISION_CODES[rung] for rung in ("fp32", "fp32", "selective_fp32")]
    assert found["precision"][:3].tolist() == codes
    assert np.array_equal(found["mean"][:3], [*fp32.pooled["mean"], selective.pooled["mean"][1]])
    assert not np.array_equal(found["mean"][:3], fp16.pooled["mean"])


# --- rows that no rung could embed --------------------------------------------------------------

missing_rows = pytest.mark.parametrize("missing", [[0], [1], [3], [0, 3], [0, 1, 3]])


@every_form
@missing_rows
def test_a_quarantined_row_is_nan_and_its_precision_none(job_of, output, form, missing):
    job = job_of(form)
    kept = [record.row for record in job.batches[0] if record.row not in missing]
    part = job.compute(0, rows=kept)
    bad = job.quarantine(0, missing)
    job.compute(1)
    job.compute(2)
    fetched = fetch(job.store, job.manifest, output)
    found = contents(output)
    assert fetched.quarantined == list(bad)
    assert found["rows"].tolist() == [record.row for record in RECORDS]
    assert found["lengths"].tolist() == [min(len(r.residues), MAX_RESIDUES) for r in RECORDS]
    is_missing = np.isin(found["rows"], missing)
    assert (found["precision"] == PRECISION_CODES["none"]).tolist() == is_missing.tolist()
    for name in form.pooled_names:
        assert np.isnan(found[name][is_missing]).all()
        assert np.array_equal(found[name][:3][~is_missing[:3]], part.pooled[name])
        assert np.isfinite(found[name][3:]).all()
    for name in form.scores:
        power = 2 if name in PAIR_SCORES else 1 if name in RESIDUE_SCORES else 0
        gone = np.repeat(is_missing, found["lengths"] ** power)
        assert np.isnan(found[name][gone]).all()
        assert np.array_equal(found[name][~gone][: len(part.scores[name])], part.scores[name])
        assert np.isfinite(found[name][~gone]).all()


@pytest.mark.parametrize("form", [FORMS["per residue"], FORMS["layers"]], ids=["one", "several"])
@missing_rows
def test_offsets_are_right_where_rows_are_missing(job_of, output, form, missing):
    job = job_of(form)
    rows = [record.row for record in job.batches[0]]
    part = job.compute(0, rows=[row for row in rows if row not in missing])
    job.quarantine(0, missing)
    after = job.compute(1)
    job.compute(2)
    fetch(job.store, job.manifest, output)
    found = contents(output)
    assert found["offsets"].tolist() == [0, *np.cumsum(found["lengths"])]
    numbers = [residues_of(found, rows.index(row)) for row in rows if row not in missing]
    assert np.array_equal(np.concatenate([part.residues[:0], *numbers]), part.residues)
    assert all(np.isnan(residues_of(found, rows.index(row))).all() for row in missing)
    assert np.array_equal(residues_of(found, 3), after.residues)


def test_the_file_says_how_many_rows_have_no_numbers_and_fetch_which(job, output):
    job.compute(0, rows=[1])
    first = job.quarantine(0, [0, 3])
    job.compute(1)
    job.compute(2, rows=[])
    second = job.quarantine(2, [6, 7, 8])
    fetched = fetch(job.store, job.manifest, output)
    assert fetched.quarantined == [*first, *second]
    assert fetched.quarantined[0].seen == {Rung.FP32: SEEN}
    with h5py.File(output) as file:
        assert file.attrs["rows_without_numbers"] == 5


def test_a_row_that_was_embedded_after_all_is_not_counted_as_quarantined(job, output):
    job.compute(0, rows=[1])
    job.compute(0, rung=Rung.FP32, rows=[3])
    first, _ = job.quarantine(0, [0, 3])
    job.compute(1)
    job.quarantine(1, [4])
    job.compute(2)
    assert fetch(job.store, job.manifest, output).quarantined == [first]
    codes = [PRECISION_CODES[rung] for rung in ("none", "fp16", "fp32", "fp16")]
    assert contents(output)["precision"][:4].tolist() == codes


REASONS = "The reasons are in the store."


def test_the_user_is_told_how_many_rows_have_no_numbers_which_and_where_to_read_why(
    job, output, capsys
):
    job.compute(0, rows=[1])
    job.quarantine(0, [0, 3])
    job.compute(1)
    job.compute(2)
    report_fetched(fetch(job.store, job.manifest, output), REASONS)
    told = capsys.readouterr().err
    assert f"Wrote 7 embeddings to {output}." in told
    assert "Without an embedding (NaN, precision 'none'): 2 rows whose forward pass was not" in told
    assert f"crashed its worker. {REASONS}\n" in told
    assert "  row 0 'id0' (3 letters): fp32: 3 NaN, 1 Inf, finite values from -6.55e+04 to" in told
    assert "  row 3 'id3'" in told


def test_a_file_without_such_rows_needs_no_such_word(job, output, capsys):
    job.compute_all()
    report_fetched(fetch(job.store, job.manifest, output), REASONS)
    told = capsys.readouterr().err
    assert "Without an embedding" not in told
    assert "Computed" not in told


def test_the_user_is_told_how_many_rows_each_precision_computed_if_there_are_several(
    job, output, capsys
):
    job.compute(0, rows=[1])
    job.compute(0, rung=Rung.SELECTIVE_FP32, rows=[3])
    job.quarantine(0, [0])
    job.compute(1)
    job.compute(2, precision=Rung.FP32)
    report_fetched(fetch(job.store, job.manifest, output), REASONS)
    told = capsys.readouterr().err
    assert "Computed 2 in fp16, 1 in selective_fp32, 3 in fp32: see 'precision'." in told
    assert "Without an embedding (NaN, precision 'none'): 1 row whose" in told


# --- what cannot be fetched ---------------------------------------------------------------------


def refusal(job: Job, output) -> str:
    """The message that a fetch ends with, which leaves no file."""
    with pytest.raises(UserError) as caught:
        fetch(job.store, job.manifest, output)
    assert [path for path in output.parent.glob("*") if path.is_file()] == []
    return str(caught.value)


def test_a_job_with_a_batch_missing_is_refused_with_what_to_do(job, output):
    job.compute(0)
    job.compute(2)
    message = refusal(job, output)
    assert message.startswith(f"1 of 3 batches of {job.manifest.job} have no output yet")
    assert message.endswith("yet. To wait for them: job.wait()")


def test_a_job_without_any_output_is_refused(job, output):
    assert refusal(job, output).startswith("3 of 3 batches")


def test_rows_that_wait_for_a_retry_are_refused_with_what_to_do(job, output):
    job.compute(0)
    job.compute(1)
    job.compute(2, rows=[7])
    name = job.manifest.job
    assert refusal(job, output) == (
        f"2 rows of batch 2 of {name}, row 6 first, have no vectors yet. To wait for them: "
        "job.wait()\nIf the job is finished, to have them computed again: job.retry(damaged=True)"
    )


@pytest.mark.parametrize(
    ("rungs", "quarantined", "waiting"),
    [
        ([Rung.SELECTIVE_FP32], [], "1 rows of batch 0 of .+, row 0 first"),
        ([Rung.SELECTIVE_FP32, Rung.FP32], [], "1 rows of batch 0 of .+, row 0 first"),
        ([], [0], "1 rows of batch 0 of .+, row 3 first"),
    ],
    ids=["after one retry", "after the last", "some are quarantined"],
)
def test_a_single_row_that_waits_is_enough_to_refuse(job, output, rungs, quarantined, waiting):
    job.compute(0, rows=[1])
    for rung in rungs:
        job.compute(0, rung=rung, rows=[3])
    job.quarantine(0, quarantined)
    job.compute(1)
    job.compute(2)
    with pytest.raises(UserError, match=waiting):
        fetch(job.store, job.manifest, output)
    assert not output.exists()


def test_a_quarantine_of_another_batch_is_no_excuse(job, output):
    job.compute(0, rows=[1, 3])
    job.quarantine(1, [0])
    job.compute(1)
    job.compute(2)
    assert "row 0 first, have no vectors yet" in refusal(job, output)


def test_the_shard_of_another_batch_is_refused_with_what_to_do(job, output):
    job.compute(0)
    job.compute(1)
    job.compute(2)
    name = job.manifest.job
    other = job.store.get(shard_key(name, 1, Rung.FP16))
    job.store.put(shard_key(name, 0, Rung.FP16), other)
    assert refusal(job, output) == (
        f"{job.store.url}/{name}/output/0000000.fp16.h5 is of batch 1 of {name}. To have the right "
        "one computed: job.retry(damaged=True)"
    )


def damage(job, index: int, dataset: str) -> None:
    """Change one number of a shard, where it lies in the file."""
    with (
        job.store.open(shard_key(job.manifest.job, index, Rung.FP16)) as path,
        h5py.File(path) as file,
    ):
        offset = file[dataset].id.get_offset()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "of an earlier version"])
@pytest.mark.parametrize("dataset", ["mean", "residues", "rows", "lengths", "precision"])
def test_a_shard_in_which_one_bit_has_changed_is_refused(job_of, output, dataset, sealed):
    job = job_of(OutputForm(include=("mean", "per_residue"), max_residues=1022))
    for index in range(3):
        job.compute(index, sealed=sealed)
    damage(job, 1, dataset)
    message = refusal(job, output)
    assert "0000001.fp16.h5 cannot be read (" in message
    assert sealed or dataset == "lengths" or f"({dataset} has another checksum" in message
    assert not output.exists()


def test_verify_names_every_batch_that_could_not_be_fetched(job):
    for index in range(3):
        job.compute(index, sealed=False)
    assert verify(job.store, job.manifest) == []
    damage(job, 0, "mean")
    damage(job, 2, "lengths")
    first, second = verify(job.store, job.manifest)
    assert "0000000.fp16.h5 cannot be read (mean has another checksum" in first
    assert "0000002.fp16.h5 cannot be read (lengths has another checksum" in second


@pytest.mark.parametrize("attribute", ["dim", "weights", "job", "batch"])
def test_verify_goes_on_after_shards_without_an_attribute(job, attribute):
    for index in range(3):
        job.compute(index)
        with h5py.File(job.store.root / shard_key(job.manifest.job, index, Rung.FP16), "a") as file:
            del file.attrs[attribute]
    problems = verify(job.store, job.manifest)
    assert ["cannot be read (" in text for text in problems] == [True] * 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        *((error, " (odd)") for error in (RuntimeError, TypeError, AttributeError)),
        (MemoryError, ": there is not enough memory"),  # the shard may be whole
    ],
)
def test_whatever_error_damage_has_names_the_shard(job, output, monkeypatch, error, reason):
    def read_embeddings(*_arguments):
        raise error("odd")

    job.compute_all()
    monkeypatch.setattr("producer.output.job_shards.read_embeddings", read_embeddings)
    assert all(f"cannot be read{reason}" in text for text in verify(job.store, job.manifest))
    with pytest.raises(UserError) as caught:
        fetch(job.store, job.manifest, output)
    key = shard_key(job.manifest.job, 0, Rung.FP16)
    assert caught.value.path == f"{job.store.url}/{key}"


def test_a_damaged_input_object_is_named(job):
    job.compute(0, rows=[1])
    job.compute(1)
    job.compute(2)
    job.store.put(input_key(job.manifest.job, 0), b">0 cut")
    (problem,) = verify(job.store, job.manifest)
    assert "0000000.fasta is damaged (it has another checksum" in problem
    of_an_earlier_version = job.manifest.model_copy(update={"input_crc32": ""})
    (problem,) = verify(job.store, of_an_earlier_version)
    assert "0000000.fasta is damaged (the object is cut short)" in problem


def test_a_damaged_quarantine_is_refused_with_what_to_do(job, output):
    job.compute(0, rows=[1])
    job.quarantine(0, [0, 3])
    job.compute(1)
    job.compute(2)
    name = job.manifest.job
    job.store.put(quarantine_key(name, 0), b"{")
    assert refusal(job, output) == (
        f"{job.store.url}/{name}/quarantine/0000000.json is damaged: delete it and the batch's "
        f"last shard, {job.store.url}/{name}/output/0000000.*, and resume the job."
    )


def test_files_that_are_no_shards_of_the_job_are_warned_of_and_left_alone(job, output, caplog):
    parts = job.compute_all()
    strays = ["notes.txt", "0000000.fp8.h5", "0.fp16.h5", "0000003.fp16.h5", "0000000.fp16.h5.bak"]
    for name in strays:
        job.store.put(f"{output_prefix(job.manifest.job)}{name}", b"something")
    fetch(job.store, job.manifest, output)
    assert np.array_equal(
        contents(output)["mean"], np.concatenate([part.pooled["mean"] for part in parts])
    )
    for name in strays:
        assert f"/output/{name} is not a shard of this job: ignored." in caplog.text
        assert job.store.get(f"{output_prefix(job.manifest.job)}{name}") == b"something"


def test_a_shard_of_a_batch_that_the_job_does_not_have_does_not_hide_one_that_is_missing(
    job, output
):
    job.compute(0)
    job.compute(2)
    data = job.store.get(shard_key(job.manifest.job, 0, Rung.FP16))
    job.store.put(shard_key(job.manifest.job, 3, Rung.FP16), data)
    assert refusal(job, output).startswith("1 of 3 batches")


def test_numbers_of_different_weights_do_not_come_into_one_file(job, output):
    job.compute(0, weights="these")
    job.compute(1, weights="those")
    job.compute(2, weights="these")
    key = shard_key(job.manifest.job, 1, Rung.FP16)
    assert refusal(job, output) == (
        f"{job.store.url}/{key} was computed with weights those, others of this job with these: "
        "their vectors do not belong in one file."
    )


def test_numbers_of_a_retry_come_from_the_same_weights_too(job, output):
    job.compute(0, rows=[0, 1])
    job.compute(0, rung=Rung.SELECTIVE_FP32, rows=[3], weights="others")
    job.compute(1)
    job.compute(2)
    key = shard_key(job.manifest.job, 0, Rung.SELECTIVE_FP32)
    assert f"{key} was computed with weights others" in refusal(job, output)


def test_a_damaged_shard_of_a_retry_is_named_with_what_to_do(job, output):
    job.compute(0, rows=[0, 1])
    job.compute(0, rung=Rung.SELECTIVE_FP32, rows=[3])
    job.compute(1)
    job.compute(2)
    key = shard_key(job.manifest.job, 0, Rung.SELECTIVE_FP32)
    job.store.put(key, b"")
    message = refusal(job, output)
    assert message.startswith(f"{job.store.url}/{key} cannot be read (")
    assert message.endswith("). To have it computed again: job.retry(damaged=True)")


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("keep", [0, 1000])
def test_a_damaged_shard_is_named_with_what_to_do(job, output, index, keep):
    job.compute_all()
    key = shard_key(job.manifest.job, index, Rung.FP16)
    path = job.store.root / key
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(job, output)
    assert message.startswith(f"{job.store.url}/{key} cannot be read (")
    assert message.endswith("). To have it computed again: job.retry(damaged=True)")


def test_a_shard_of_another_form_is_named(job, output):
    job.compute_all()
    of_another_form = job.manifest.model_copy(update={"form": FORMS["bos"]})
    store_shard(job.store, of_another_form, 1, dim=DIM)
    assert f"{shard_key(job.manifest.job, 1, Rung.FP16)} cannot be read" in refusal(job, output)


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_an_output_that_cannot_be_written_is_named(job, output, blocked):
    job.compute_all()
    if blocked == "folder":  # there is a folder where the file should be
        output.mkdir()
    else:  # there is a file where its folder should be
        output.parent.rmdir()
        output.parent.write_text("")
    assert refusal(job, output).startswith(f"{output} cannot be written: ")


def test_an_earlier_output_stays_if_the_new_one_cannot_be_made(job, output):
    output.write_text("earlier")
    job.compute(0)
    job.compute(1, weights="others")
    job.compute(2)
    with pytest.raises(UserError):
        fetch(job.store, job.manifest, output)
    assert [path.name for path in output.parent.iterdir()] == ["out.h5"]
    assert output.read_text() == "earlier"
