"""Frames against an independent implementation of VirNucPro's rules, one codon at a time."""

import io
import random
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.alphabet import DNA
from common.job.records import Record
from producer.input.reader import Reader
from producer.input.source import Source
from producer.translation import frames as frames_module
from producer.translation.chunks import chunk_bounds
from producer.translation.fasta import write_chunk, write_dna, write_proteins
from producer.translation.frames import Contig, Frame, translate
from producer.translation.genetic_codes import BASES, GENETIC_CODES, amino_acids
from producer.translation.options import Translation
from tests.support.shared import shared_file

REFERENCE = "virnucpro_reference"
PAIRS = {"A": "T", "C": "G", "G": "C", "T": "A"}


# --- the rules, written again -------------------------------------------------------------------


def bounds_by_the_book(length: int, size: int) -> list[tuple[int, int]]:
    """Return the chunks of a contig by the loop that VirNucPro has for them."""
    count = -(-length // size)
    surplus = count * size - length
    each, rest = surplus // count, surplus % count
    found, start = [], 0
    for number in range(count):
        end = min(start + size, length)
        found.append((start, end))
        step = size - each
        # The first steps are one base shorter, as many as are left over, and of the last chunk
        # there is no step.
        if number < min(count - 1, each + rest):
            step -= 1
        start += step
    return found


def codon_by_codon(strand: str, frame: int, code: int) -> tuple[str, str]:
    """Return the protein and the DNA of a frame; a codon of other letters is dropped."""
    table = dict(zip(map("".join, product(BASES, repeat=3)), amino_acids(code), strict=True))
    protein = ""
    for place in range(frame, len(strand) - 2, 3):
        protein += table.get(strand[place : place + 3], "")
    return protein, strand[frame : frame + 1 + 3 * len(protein)]


def frames_by_the_book(id_: str, contig: str, size: int, code: int = 1) -> list[Frame]:
    found = []
    for number, (start, end) in enumerate(bounds_by_the_book(len(contig), size), start=1):
        chunk = contig[start:end].upper()
        back = "".join(PAIRS.get(letter, letter) for letter in reversed(chunk))
        for sign, strand in (("F", chunk), ("R", back)):
            for frame in range(3):
                protein, dna = codon_by_codon(strand, frame, code)
                if protein and "*" not in protein:
                    found.append(Frame(f"{id_}_chunk_{number}{sign}{frame + 1}", protein, dna))
    return found


def frames_of(contigs: list[str], translation: Translation) -> tuple[list[Frame], list[Contig]]:
    records = [Record(row, f"c{row} text", contig) for row, contig in enumerate(contigs)]
    frames: list[Frame] = []
    found: list[Contig] = []
    for block in translate(records, translation):
        frames += block.frames
        found += block.contigs
    return frames, found


def six(size: int = 500, code: int = 1, min_frame: int = 1) -> Translation:
    return Translation("six-frame", size, code, min_frame)


def dna(length: int, seed: int = 0, letters: str = "ACGT") -> str:
    return "".join(random.Random(seed).choices(letters, k=length))


def open_dna(codons: int, seed: int = 0) -> str:
    """Return DNA whose first frame has no stop."""
    rng = random.Random(seed)
    table = zip(map("".join, product(BASES, repeat=3)), amino_acids(1), strict=True)
    return "".join(rng.choices([codon for codon, letter in table if letter != "*"], k=codons))


# --- chunks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 300, 500])
def test_chunks_are_those_of_the_published_loop_up_to_three_sizes(size):
    for length in range(1, 3 * size + 1):
        assert chunk_bounds(length, size) == bounds_by_the_book(length, size), length


def test_the_last_chunk_may_be_short():
    assert chunk_bounds(501, 500) == [(0, 500), (250, 501)]
    assert chunk_bounds(1001, 500)[-1] == (666, 1001)


def test_a_contig_without_letters_has_no_chunks():
    with pytest.raises(ValueError, match="no chunks"):
        chunk_bounds(0, 500)


@given(st.integers(1, 10**6), st.integers(1, 2000))
def test_chunks_cover_a_contig_without_gaps(length, size):
    bounds = chunk_bounds(length, size)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == length
    assert all(0 < end - start <= size for start, end in bounds)
    assert all(b[0] <= a[1] and b[0] > a[0] for a, b in pairwise(bounds))


# --- six frames ---------------------------------------------------------------------------------

CONTIGS = st.lists(
    st.one_of(
        st.text("ACGT", min_size=1, max_size=80),
        st.text("ACGTN", min_size=1, max_size=80),
        st.text("ACGTRYSWKMBDHVN", min_size=1, max_size=40),
        st.integers(0, 99).map(lambda seed: open_dna(12, seed)),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150)
@given(CONTIGS, st.integers(1, 40), st.sampled_from([1, 2, 11, 25]), st.sampled_from([1, 9, 10**6]))
def test_frames_are_those_of_the_rules_in_blocks_of_any_size(contigs, size, code, block):
    expected = [
        frame
        for number, contig in enumerate(contigs)
        for frame in frames_by_the_book(f"c{number}", contig, size, code)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames_module, "BLOCK_LETTERS", block)
        frames, found = frames_of(contigs, six(size, code))
    assert frames == expected
    assert [(contig.id, contig.length) for contig in found] == [
        (f"c{number}", len(contig)) for number, contig in enumerate(contigs)
    ]
    assert [contig.chunks for contig in found] == [len(chunk_bounds(len(c), size)) for c in contigs]
    assert sum(contig.frames for contig in found) == len(frames)


@pytest.mark.parametrize("size", [300, 500])
def test_frames_of_long_contigs_are_those_of_the_rules(size):
    contigs = [dna(5000), open_dna(700, 1), dna(1) + open_dna(900, 2), dna(400, 3), "NN" * 300]
    expected = [
        frame
        for number, contig in enumerate(contigs)
        for frame in frames_by_the_book(f"c{number}", contig, size)
    ]
    assert frames_of(contigs, six(size))[0] == expected
    assert len(expected) > 10


@pytest.mark.parametrize("length", range(1, 13))
def test_frames_of_a_few_bases_are_kept_and_those_of_no_codon_are_not(length):
    contig = "AC" * 6
    frames, _ = frames_of([contig[:length]], six())
    assert [frame.id[-2:] for frame in frames] == [
        name for name in ("F1", "F2", "F3", "R1", "R2", "R3") if length >= 2 + int(name[1])
    ]
    assert frames == frames_by_the_book("c0", contig[:length], 500)


def test_the_dna_of_a_frame_is_a_base_longer_than_its_codons_where_there_is_one():
    by_name = {frame.id[-2:]: frame for frame in frames_of(["ACACAC"], six())[0]}
    assert by_name["F1"].dna == "ACACAC"
    assert by_name["F2"].dna == "CACA"


def test_codons_with_other_letters_are_dropped_and_shorten_the_dna():
    by_name = {frame.id[-2:]: frame for frame in frames_of(["AAANAACCC"], six())[0]}
    assert by_name["F1"] == Frame("c0_chunk_1F1", "KP", "AAANAAC")


def test_a_stop_with_an_ambiguous_base_is_no_stop():
    assert "F1" in {frame.id[-2:] for frame in frames_of(["AAATARCCC"], six())[0]}
    assert "F1" not in {frame.id[-2:] for frame in frames_of(["AAATAACCC"], six())[0]}


def test_letters_that_are_no_bases_stay_in_the_other_strand():
    reverse = next(f for f in frames_of(["ACRAAC"], six())[0] if f.id.endswith("R1"))
    assert reverse == Frame("c0_chunk_1R1", "V", "GTTR")


def test_contigs_and_chunks_without_a_frame_are_counted():
    stops = "TTAACTAACTAA" * 60  # stops in every frame of either strand
    frames, contigs = frames_of([stops, open_dna(200), stops[:300] + open_dna(300)], six(300))
    assert contigs[0].frames == 0
    assert contigs[0].chunks_without_frame == contigs[0].chunks > 0
    assert contigs[1].chunks_without_frame == 0
    assert 0 < contigs[2].chunks_without_frame < contigs[2].chunks
    assert sum(contig.frames for contig in contigs) == len(frames)


def test_frames_below_the_least_length_are_left_out():
    frames, contigs = frames_of([open_dna(20), open_dna(9)], six(500, min_frame=12))
    assert frames
    assert all(len(frame.protein) >= 12 for frame in frames)
    assert contigs[1] == Contig("c1", 27, 1, 0, 1)


def test_lower_case_and_rna_are_read_as_upper_case_dna(tmp_path):
    contig = open_dna(40)
    (tmp_path / "a.fa").write_text(f">c0\n{contig.lower().replace('t', 'u')}\n")
    reader = Reader(
        Source(str(tmp_path / "a.fa")), alphabet=DNA, unknown="error", long="window", max_residues=9
    )
    found = [frame for block in translate(reader, six()) for frame in block.frames]
    assert found == frames_by_the_book("c0", contig, 500)


# --- stretches between stops --------------------------------------------------------------------


def stretches_by_the_book(id_: str, contig: str, shortest: int) -> list[Frame]:
    found = []
    back = "".join(PAIRS.get(letter, letter) for letter in reversed(contig))
    table = dict(zip(map("".join, product(BASES, repeat=3)), amino_acids(1), strict=True))
    for sign, strand in (("+", contig), ("-", back)):
        for frame in range(3):
            places = list(range(frame, len(strand) - 2, 3))
            letters = "".join(table.get(strand[p : p + 3], "X") for p in places)
            codon = 0
            for protein in letters.split("*"):
                start, end = frame + 3 * codon, frame + 3 * (codon + len(protein))
                codon += len(protein) + 1
                if len(protein) < shortest:
                    continue
                here = (start, end) if sign == "+" else (len(contig) - end, len(contig) - start)
                name = f"{id_}_{here[0] + 1}_{here[1]}_{sign}"
                found.append(Frame(name, protein, strand[start:end]))
    return found


@given(CONTIGS, st.integers(1, 5))
def test_stretches_between_stops_are_those_of_the_rules(contigs, shortest):
    expected = [
        frame
        for number, contig in enumerate(contigs)
        for frame in stretches_by_the_book(f"c{number}", contig, shortest)
    ]
    found, _ = frames_of(contigs, Translation("orfs", None, 1, shortest))
    assert found == expected


def test_stretches_of_chunks_have_their_chunk_s_name():
    found, _ = frames_of([open_dna(300)], Translation("orfs", 300, 1, 30))
    assert all(frame.id.startswith("c0_chunk_") for frame in found)
    assert {frame.protein for frame in found if "_1_300_+" in frame.id}


# --- genetic codes ------------------------------------------------------------------------------


def test_genetic_codes_are_those_of_biopython():
    tables = pytest.importorskip("Bio.Data.CodonTable", reason="needs biopython")
    known = tables.unambiguous_dna_by_id
    assert set(GENETIC_CODES) == set(known)
    for code, table in known.items():
        codons = map("".join, product(BASES, repeat=3))
        assert amino_acids(code) == "".join(table.forward_table.get(c, "*") for c in codons)


@pytest.mark.parametrize("code", GENETIC_CODES)
def test_every_code_has_64_codons_of_twenty_amino_acids(code):
    assert len(amino_acids(code)) == 64
    assert set(amino_acids(code)) - {"*"} == set("ACDEFGHIKLMNPQRSTVWY")


# --- files --------------------------------------------------------------------------------------


def test_the_files_of_the_reference_run_are_written_byte_for_byte():
    text = shared_file(REFERENCE, "test_with_orfs.fa").read_text()
    contigs = {
        piece.split("\n", 1)[0]: piece.split("\n", 1)[1].replace("\n", "")
        for piece in text.split(">")[1:]
    }
    records = [Record(row, id_, letters) for row, (id_, letters) in enumerate(contigs.items())]
    proteins, bases, chunks = io.StringIO(), io.StringIO(), io.StringIO()
    for block in translate(records, six()):
        write_proteins(proteins, block.frames)
        write_dna(bases, block.frames)
    for id_, letters in contigs.items():
        for number, (start, end) in enumerate(chunk_bounds(len(letters), 500), start=1):
            write_chunk(chunks, f"{id_}_chunk_{number}", letters[start:end])
    for name, written in (
        ("identified_protein.faa", proteins),
        ("identified_nucleotide.fa", bases),
        ("chunked500.fa", chunks),
    ):
        expected = shared_file(REFERENCE, f"test_with_orfs_{name}").read_text()
        assert written.getvalue() == expected, name
