"""Frames and chunks as FASTA, byte for byte as VirNucPro writes them."""

from collections.abc import Iterable
from typing import TextIO

from producer.translation.frames import Frame

#: Letters of a line of the chunks' FASTA.
LINE = 60


def write_proteins(file: TextIO, frames: Iterable[Frame]) -> None:
    """Write the proteins of frames, two lines each."""
    file.write("".join([f">{id_}\n{protein}\n" for id_, protein, _ in frames]))


def write_dna(file: TextIO, frames: Iterable[Frame]) -> None:
    """Write the DNA of frames, two lines each."""
    file.write("".join([f">{id_}\n{dna}\n" for id_, _, dna in frames]))


def write_chunk(file: TextIO, id_: str, letters: str) -> None:
    """Write a chunk, in lines of ``LINE`` letters."""
    lines = (letters[start : start + LINE] for start in range(0, len(letters), LINE))
    file.write("\n".join([f">{id_}", *lines]) + "\n")
