"""An input of another molecule than the model is for is refused with the evidence."""

import random
from pathlib import Path

import pytest

from common.alphabet import DNA, PROTEIN, Alphabet
from common.errors import InputError
from producer.input.molecule import EARLY_LETTERS, EARLY_RECORDS, is_nucleic_acid, is_protein
from producer.input.reader import Reader
from producer.input.source import Source
from tests.conftest import ROOT

#: Amino acids as often as in UniProt, in thousandths.
FREQUENCIES = dict(
    zip(
        "ALGVESIKRDTPNQFYMHCW",
        [83, 97, 71, 69, 67, 66, 59, 58, 55, 55, 53, 47, 41, 39, 39, 29, 24, 23, 14, 11],
        strict=True,
    )
)
PEPTIDE = "MKTAYIAKQRQISFVKSHFSRQ"
GENE = "ACGTTGCAAGGCTTAACCGGTATCGATCGGATTACAGGCATGCAATTCG"


def proteins(number: int, length: int = 60) -> list[str]:
    rng = random.Random(1)
    letters, weights = "".join(FREQUENCIES), list(FREQUENCIES.values())
    return ["".join(rng.choices(letters, weights, k=length)) for _ in range(number)]


def dna(number: int, length: int = 60, letters: str = "ACGT") -> list[str]:
    rng = random.Random(2)
    return ["".join(rng.choices(letters, k=length)) for _ in range(number)]


def fasta(sequences: list[str]) -> str:
    return "".join(f">r{n}\n{sequence}\n" for n, sequence in enumerate(sequences))


def reader_of(path: Path, alphabet: Alphabet, **options) -> Reader:
    defaults = {"unknown": "error", "long": "truncate", "max_residues": 1022}
    return Reader(Source(str(path)), alphabet=alphabet, **(defaults | options))


@pytest.fixture
def reader(tmp_path):
    """Return a function that writes FASTA, and returns its reader, which has read it."""

    def run(sequences: list[str], alphabet: Alphabet, **options) -> Reader:
        path = tmp_path / "in.fa"
        path.write_text(fasta(sequences))
        found = reader_of(path, alphabet, **options)
        for _ in found:
            pass
        return found

    return run


@pytest.fixture
def refusal(tmp_path, reader):
    def run(sequences: list[str], alphabet: Alphabet, **options) -> str:
        with pytest.raises(InputError) as caught:
            reader(sequences, alphabet, **options)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return run


def test_dna_for_a_protein_model_is_refused_with_the_evidence(refusal):
    assert refusal([GENE, GENE[:40] + "RYSW"], PROTEIN) == (
        "in.fa: 2 of the 2 records with a sequence are DNA or RNA: A, C, G, T, U and N are 95.7% "
        "of their letters. The model is for proteins. For example, line 1: record 1 ('r0') is "
        f"{GENE}. Give a model of DNA (model dnabert_s), or translate the records; to embed their "
        "letters as amino acids all the same, set molecule to protein."
    )


def test_a_single_record_is_spoken_of_as_one(refusal):
    assert refusal([2 * GENE], PROTEIN).startswith(
        "in.fa: the only record with a sequence is DNA or RNA: A, C, G, T, U and N are 100.0% of "
        "its letters."
    )
    assert "the only record with a sequence is a protein" in refusal([PEPTIDE], DNA)


def test_proteins_for_a_model_of_dna_are_refused_once_not_for_each_letter(refusal):
    message = refusal([PEPTIDE, *proteins(30)], DNA)
    assert message.startswith(
        "in.fa: 31 of the 31 records with a sequence are proteins: A, C, G, T, U and N are 2"
    )
    assert f"The model is for DNA. For example, line 1: record 1 ('r0') is {PEPTIDE}." in message
    assert "at position" not in message
    assert message.endswith("if it is DNA all the same, set molecule to dna.")


@pytest.mark.parametrize("letters", ["acgt", "ACGU", "ACGTN"], ids=["lower case", "RNA", "N"])
def test_other_nucleic_acids_are_refused_too(refusal, letters):
    assert "DNA or RNA" in refusal(dna(20, letters=letters), PROTEIN)


def test_a_wrong_letter_hides_no_dna(refusal):
    assert "20 of the 20" in refusal([f"{s}E" for s in dna(20)], PROTEIN)


def test_a_right_letter_makes_no_dna_of_proteins(refusal):
    assert "are proteins" in refusal([f"{s}NNNN" for s in proteins(20)], DNA)


@pytest.mark.parametrize("unknown", ["x", "skip"])
def test_proteins_are_not_embedded_as_n_nor_left_out_in_silence(refusal, unknown):
    assert "are proteins" in refusal(proteins(20), DNA, unknown=unknown)


@pytest.mark.parametrize(
    ("alphabet", "sequences", "molecule"),
    [(PROTEIN, dna(20), "protein"), (DNA, proteins(20, 30), "dna")],
    ids=["protein", "dna"],
)
def test_what_the_user_says_overrides(tmp_path, reader, alphabet, sequences, molecule):
    read = reader(sequences, alphabet, molecule=molecule, unknown="x")
    assert (read.read, read.molecule) == (20, molecule)


@pytest.mark.parametrize(
    "sequences",
    [
        *(["ACGT"], ["ACGTACGTAC"], ["ACGTACGTACGTACGTACG"] * 100, [GENE[:40]]),
        *(["AAT" * 40], ["GAGAGS" * 30], ["A" * 500], ["GANGTC", PEPTIDE]),
        [*dna(89), *proteins(11)],
    ],
    ids=["4", "10", "short", "40", "AFGP", "silk", "poly-A", "peptides", "mixture"],
)
def test_what_may_be_proteins_is_not_refused(reader, sequences):
    assert reader(sequences, PROTEIN).read == len(sequences)


@pytest.mark.parametrize(
    "sequences",
    [["ACGT"], ["NNNNNNNNNN"], dna(5, letters="ACGTRYSWKMBDHVN"), dna(5, 5), ["ACGU"]],
    ids=["4", "N", "codes", "short", "RNA"],
)
def test_what_may_be_dna_is_not_refused(reader, sequences):
    assert reader(sequences, DNA).read == len(sequences)


def test_a_mixture_has_its_bad_records_listed(refusal):
    message = refusal([*dna(15), *proteins(5)], DNA)
    assert message.startswith("in.fa: 5 records cannot be embedded.\n  line 32: record 16")


def test_no_protein_passes_for_dna_nor_dna_for_a_protein():
    assert not any(map(is_nucleic_acid, proteins(10_000, 20)))
    assert not any(map(is_protein, dna(10_000, 20, "ACGTRYSWKMBDHVNU")))
    assert all(map(is_protein, proteins(10_000, 100)))
    assert all(map(is_nucleic_acid, dna(10_000, 20)))


@pytest.mark.parametrize(
    ("sequences", "alphabet"),
    [
        (dna(1000) * 200, PROTEIN),
        (proteins(1000) * 200, DNA),
        ([GENE * (EARLY_LETTERS // 40)] + [GENE] * 200_000, PROTEIN),
    ],
    ids=["dna", "protein", "one long record"],
)
def test_a_large_input_is_refused_before_it_is_read_to_its_end(tmp_path, sequences, alphabet):
    path = tmp_path / "in.fa"
    path.write_text(fasta(sequences))
    reader = reader_of(path, alphabet)
    with pytest.raises(InputError, match=r"of the first [\d,]+ records? with a sequence are"):
        list(reader)
    assert reader.read < 3 * EARLY_RECORDS


def test_dna_after_many_proteins_is_refused_once_it_is_nearly_all(refusal):
    message = refusal([*proteins(EARLY_RECORDS), *dna(20 * EARLY_RECORDS)], PROTEIN)
    assert "of the first" in message
    assert f"For example, line {2 * EARLY_RECORDS + 1}: record {EARLY_RECORDS + 1} " in message


def test_records_without_a_sequence_are_none_of_any_molecule(refusal):
    assert "2 of the 2 records" in refusal(["", GENE, "", GENE], PROTEIN, empty="skip")


def test_the_example_has_the_line_of_its_header_in_a_wrapped_file(tmp_path):
    path = tmp_path / "in.fa"
    path.write_text(f"; c\n>p\n{PEPTIDE}\n\n >d\n; c\n{GENE[:20]}\n{GENE}\n" + fasta(dna(20)))
    with pytest.raises(InputError, match=r"line 5: record 2 \('d'\) is ACGT") as caught:
        list(reader_of(path, PROTEIN))
    assert (caught.value.path, caught.value.line, caught.value.record) == (str(path), 5, 2)


@pytest.mark.parametrize(
    ("alphabet", "sequences", "molecule"),
    [
        *((PROTEIN, [PEPTIDE], "protein"), (DNA, [GENE], "dna")),
        (DNA, [GENE.replace("T", "U"), GENE.replace("T", "U"), GENE], "rna"),
    ],
    ids=["protein", "dna", "rna"],
)
def test_what_was_assumed_is_told(reader, alphabet, sequences, molecule):
    assert reader(sequences, alphabet).molecule == molecule


def test_none_of_the_projects_own_proteins_is_dna():
    records = list(reader_of(ROOT / "examples" / "proteins.fasta", PROTEIN))
    assert records
    assert not [record for record in records if is_nucleic_acid(record.residues)]
