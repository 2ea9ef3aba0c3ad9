"""The frames of contigs: what six frames are read as, in blocks of many contigs."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from common.job.records import Record
from producer.input.reader import first_words
from producer.translation.chunks import Chunks, Numbers, chunks_of
from producer.translation.options import Translation
from producer.translation.orfs import stretches
from producer.translation.strands import FRAMES, UNKNOWN, Strand, open_frames, strands_of

#: Letters of a block, of which a few arrays are in memory.
BLOCK_LETTERS = 1 << 20

#: The names of the six frames, in their order.
NAMES = ("F1", "F2", "F3", "R1", "R2", "R3")


class Frame(NamedTuple):
    """What one frame of a chunk is read as."""

    id: str  # the chunk's, and F1 to R3; of a stretch between stops its place
    protein: str
    dna: str


class Contig(NamedTuple):
    """What became of one contig."""

    id: str  # the first word of its header
    length: int
    chunks: int
    frames: int
    chunks_without_frame: int


#: Make them of tuples: their own constructors would take a tenth of the time.
as_frame, as_contig = partial(tuple.__new__, Frame), partial(tuple.__new__, Contig)


class Translated(NamedTuple):
    """The next frames, and the contigs all of whose frames have come."""

    frames: list[Frame]
    contigs: list[Contig]


class Block(NamedTuple):
    """Chunks of contigs, which lie in one text."""

    ids: list[str]  # of all contigs of the text
    chunks: Chunks  # their places in the text
    strands: tuple[Strand, Strand]  # of the part of the text that these chunks have
    start: int  # of that part
    length: int


#: Yields the frames of a block in their order, each with the number of its chunk in the block.
Reading = Callable[[Block, Translation], Iterator[tuple[int, Frame]]]


def translate(records: Iterable[Record], translation: Translation) -> Iterator[Translated]:
    """Yield the frames of contigs in their order: chunk by chunk, F1 F2 F3 R1 R2 R3.

    Memory holds a block, or a contig that is larger. The rules are VirNucPro's
    (``translate_six_frames``): a codon with another letter than A, C, G and T is dropped, and a
    frame is kept if its protein is not empty and has no stop. Its DNA is one base longer than the
    codons of its protein, where there is one.
    """
    read: Reading = six_frames if translation.kind == "six-frame" else all_stretches
    for contigs in together(records):
        yield from translated(contigs, translation, read)


def together(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield contigs together that have ``BLOCK_LETTERS`` letters."""
    some: list[Record] = []
    letters = 0
    for record in records:
        some.append(record)
        letters += len(record.residues)
        if letters >= BLOCK_LETTERS:
            yield some
            some, letters = [], 0
    if some:
        yield some


def translated(
    contigs: list[Record], translation: Translation, read: Reading
) -> Iterator[Translated]:
    """Yield the frames of some contigs, and the contigs themselves at the end."""
    text = "".join([contig.residues for contig in contigs])
    lengths = np.array([len(contig.residues) for contig in contigs], np.int64)
    chunks = chunks_of(lengths, translation.chunk)
    offsets = (np.cumsum(lengths) - lengths)[chunks.contigs]
    chunks = chunks._replace(starts=chunks.starts + offsets, ends=chunks.ends + offsets)
    frames = np.zeros(len(contigs), np.int64)
    with_frame = np.zeros(len(contigs), np.int64)
    ids = first_words(contig.header for contig in contigs)
    for some in parts(chunks):
        start, end = int(some.starts[0]), int(some.ends[-1])
        strands = strands_of(text[start:end], translation.code)
        found = list(read(Block(ids, some, strands, start, end - start), translation))
        numbers = np.array([number for number, _ in found], np.int64)
        frames += np.bincount(some.contigs[numbers], minlength=len(contigs))
        with_frame += np.bincount(some.contigs[np.unique(numbers)], minlength=len(contigs))
        yield Translated([frame for _, frame in found], [])
    counts = np.bincount(chunks.contigs, minlength=len(contigs))
    columns = lengths, counts, frames, counts - with_frame
    rows = zip(ids, *(column.tolist() for column in columns), strict=True)
    yield Translated([], list(map(as_contig, rows)))


def parts(chunks: Chunks) -> Iterator[Chunks]:
    """Yield chunks together that have ``BLOCK_LETTERS`` letters."""
    of_block = chunks.starts // BLOCK_LETTERS
    bounds = np.flatnonzero(np.diff(of_block, prepend=-1, append=-1))
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield Chunks(*(column[first:end] for column in chunks))


def chunk_id(block: Block, chunk: int) -> str:
    """Return the id of a chunk, as VirNucPro has it."""
    contig, number = int(block.chunks.contigs[chunk]), int(block.chunks.numbers[chunk])
    return f"{block.ids[contig]}_chunk_{number + 1}"


def places_of(block: Block) -> tuple[Numbers, Numbers]:
    """Return the start of each chunk in either strand."""
    forward = block.chunks.starts - block.start
    return forward, block.length + block.start - block.chunks.ends


def six_frames(block: Block, translation: Translation) -> Iterator[tuple[int, Frame]]:
    """Yield the frames of a block without a stop."""
    places, lengths = places_of(block), block.chunks.ends - block.chunks.starts
    forward, reverse = block.strands
    of_strands = [
        open_frames(strand, starts, lengths)
        for strand, starts in zip(block.strands, places, strict=True)
    ]
    chunks, frames = np.nonzero(np.concatenate(of_strands, axis=1))
    sides, offsets = frames // FRAMES, frames % FRAMES
    begins = np.stack(places)[sides, chunks]
    contigs, numbers = block.chunks.contigs[chunks], block.chunks.numbers[chunks] + 1
    columns = chunks, contigs, numbers, frames, begins + offsets, begins + lengths[chunks]
    for chunk, contig, number, frame, first, last in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        strand = forward if frame < FRAMES else reverse
        protein = strand.protein(first, last)
        if UNKNOWN in protein:
            protein = protein.replace(UNKNOWN, "")
        if len(protein) >= translation.min_frame:
            dna = strand.letters(first, min(first + 1 + FRAMES * len(protein), last))
            name = f"{block.ids[contig]}_chunk_{number}{NAMES[frame]}"
            yield chunk, as_frame((name, protein, dna))


def all_stretches(block: Block, translation: Translation) -> Iterator[tuple[int, Frame]]:
    """Yield the stretches of a block between two stops."""
    places = places_of(block)
    for chunk, (start, end) in enumerate(
        zip(block.chunks.starts.tolist(), block.chunks.ends.tolist(), strict=True)
    ):
        length = end - start
        id_ = block.ids[int(block.chunks.contigs[chunk])]
        id_ = id_ if translation.chunk is None else chunk_id(block, chunk)
        for strand, starts, sign in zip(block.strands, places, "+-", strict=True):
            begin = int(starts[chunk])
            for first, last in stretches(strand, begin, length, translation.min_frame):
                protein = strand.protein(first, last).replace(UNKNOWN, "X")
                here = first - begin, last - begin
                one, other = here if sign == "+" else (length - here[1], length - here[0])
                name = f"{id_}_{one + 1}_{other}_{sign}"
                yield chunk, Frame(name, protein, strand.letters(first, last))
