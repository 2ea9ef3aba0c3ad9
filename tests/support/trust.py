"""Checks of half precision against FP32 for one model: a small one on a CPU, all on a GPU."""

from dataclasses import dataclass

import numpy as np

from common.embeddings.arrays import Array
from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import Rung
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import load_model
from workers.validation.measure import Measured, measure
from workers.validation.sets import make_sets
from workers.validation.statistics import compare, cosines

SETS = ["short", "medium", "long", "very_long", "mixed"]
LAYOUTS = ["packed", "padded"]


@dataclass(frozen=True)
class Seeds:
    """Return a model's embeddings of all sets in FP32 and in half precision."""

    exact: Measured
    half: Measured


def measure_seeds(source, half: Rung, device: str, count: int) -> Seeds:
    return Seeds(measure(source, Rung.FP32, device, count), measure(source, half, device, count))


def vectors(measured: Measured, layout: str, name: str) -> Array:
    return getattr(measured, layout)[name]


def assert_equivalent(seeds: Seeds, name: str, layout: str, floor: float) -> None:
    """Compare half precision in both layouts with padded FP32: cosines and statistics."""
    found = compare(vectors(seeds.half, layout, name), vectors(seeds.exact, "padded", name))
    assert found.failures == ()
    assert found.cosine_min >= floor


def assert_long_sequences_are_no_worse(seeds: Seeds, floor: float, longer_than: int = 400) -> None:
    lengths = {each.name: np.array(each.lengths) for each in seeds.half.sets}
    seen = 0
    for name in SETS:
        long = lengths[name] > longer_than
        one, other = (vectors(of, "packed", name)[long] for of in (seeds.half, seeds.exact))
        seen += len(one)
        assert (cosines(one.astype(np.float64), other.astype(np.float64)) >= floor).all()
    assert seen > 0


def assert_stable(seeds: Seeds) -> None:
    for measured in (seeds.half, seeds.exact):
        for name in SETS:
            for layout in LAYOUTS:
                assert np.isfinite(vectors(measured, layout, name)).all()


def alone_and_in_company(source, precision: Rung, device: str) -> list[tuple[Array, Array]]:
    """Return the embeddings of records alone, and of each in packs with many others."""
    engine = Engine(load_model(source, device=device, dtype=DTYPES[precision]))
    family = engine.loaded.spec.family
    form = OutputForm(max_residues=family.max_residues)
    others = [s for each in make_sets(family, 4, seed=1) for s in each.sequences]
    found = []
    for sequence in (others[2], others[6], others[10]):
        alone = engine.embed([Record(0, "x", sequence)], form).embeddings.pooled["mean"][0]
        for company in ([others[0]], others[:9], others[::-1]):
            for place in (0, len(company)):
                records = [Record(row, "o", other) for row, other in enumerate(company)]
                records.insert(place, Record(99, "x", sequence))
                together = engine.embed(records, form).embeddings.pooled["mean"][place]
                found.append((alone, together))
    return found
