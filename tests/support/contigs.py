"""Made-up contigs: with frames, and without any."""

import random
from itertools import product
from pathlib import Path

import numpy as np

from producer.virnucpro.classifier import Classifier
from producer.virnucpro.classifier_file import write_classifier
from tests.support.virnucpro import trained_module

STOPS = ("TAA", "TAG", "TGA")
CODONS = [codon for codon in map("".join, product("ACGT", repeat=3)) if codon not in STOPS]

#: DNA with stops in all frames of either strand.
WITHOUT_FRAMES = "TTAACTAACTAA"


def coding(length: int, draw: random.Random) -> str:
    """Return DNA whose first frame has no stop."""
    return "".join(draw.choices(CODONS, k=-(-length // 3)))[:length]


def write_contigs(path: Path, count: int, *, seed: int = 0, longest: int = 3000) -> Path:
    """Write contigs of 300 bases and more; every fifth has a frame in each chunk."""
    draw = random.Random(seed)
    with path.open("w") as file:
        for number in range(count):
            length = int(300 * (longest / 300) ** draw.random())
            dna = coding(length, draw) if number % 5 == 0 else random_dna(length, draw)
            file.write(f">contig_{number} made up\n{dna}\n")
    return path


def random_dna(length: int, draw: random.Random) -> str:
    return "".join(draw.choices("ACGT", k=length))


def classifier_for(path: Path, features: int, chunk: int | None = None) -> Path:
    """Write a classifier with made-up weights that tells made-up features apart."""
    module = trained_module(features=features, hidden=32)
    state = {name: np.array(tensor) for name, tensor in module.state_dict().items()}
    write_classifier(path, Classifier.of_state(state, "made up", chunk=chunk))
    return path
