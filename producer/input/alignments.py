"""Reads of BAM and CRAM files, read by pysam."""

from collections.abc import Iterator
from importlib import import_module
from itertools import count, islice
from typing import Any

from common.errors import InputError, UserError
from common.installing import how_to_install
from producer.input.blocks import Block
from producer.input.columns import as_fasta, not_a_sequence
from producer.input.problems import first_line

#: Reads in a block.
READS = 500


def alignment_blocks(path: str, name: str) -> Iterator[Block]:
    """Yield the reads of a BAM or CRAM file as FASTA in blocks, as they came from the sequencer.

    Each read comes once: its secondary and supplementary alignments are left out. The two reads of
    a pair have one name, to which ``/1`` and ``/2`` are added, as samtools fastq does.

    Raises:
        InputError: it cannot be read.
        UserError: pysam is not installed.
    """
    numbers = count(1)
    found = reads(path, name)
    while some := list(islice(found, READS)):
        places = [next(numbers) for _ in some]
        pieces = []
        for (id_, sequence), number in zip(some, places, strict=True):
            record = as_fasta(id_, sequence)
            if record is None:
                raise not_a_sequence(sequence, f"read {number}", name)
            pieces.append(record)
        yield Block("\n".join(pieces), places[0], places, 0, "read")


def reads(path: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield name and sequence of each read."""
    try:
        pysam = import_module("pysam")
    except ImportError as error:
        raise UserError(
            f"{name} is BAM or CRAM, and pysam is not installed, which reads it: "
            f"{how_to_install('bam')}"
        ) from error
    pysam.set_verbosity(0)  # it would write its own messages too
    number, is_cram = 0, False
    try:
        # check_sq: reads that are not aligned have no list of references.
        with pysam.AlignmentFile(path, "r", check_sq=False) as file:
            is_cram = file.is_cram
            for read in file.fetch(until_eof=True):
                if not (read.is_secondary or read.is_supplementary):
                    yield named(read), read.get_forward_sequence() or ""
                    number += 1
    except (OSError, ValueError) as error:
        reference = ", and the reference at hand (REF_PATH)" if is_cram else ""
        raise InputError(
            f"{name}, after read {number}: cannot be read to its end ({first_line(error)}). Is "
            f"the file complete{reference}? Nothing was queued.",
            path=name,
        ) from error


def named(read: Any) -> str:
    """Return a read's name, with its number in the pair."""
    suffix = ("/1" if read.is_read1 else "/2" if read.is_read2 else "") if read.is_paired else ""
    return f"{read.query_name}{suffix}"
