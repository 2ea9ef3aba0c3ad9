"""A finished job with whatever is hard for an output, and its HDF5 file to compare with."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from common.job.manifest import Manifest, write_manifest
from common.job.output_form import Include, OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record
from common.rungs import PRECISION_CODES, Rung
from common.store import Store
from common.wire.messages import Instability
from producer.output.fetch import Fetched, fetch
from producer.output.wanted import Wanted
from tests.support.jobs import SEEN, manifest_of
from tests.support.shards import store_inputs, store_shard

DIM = 6

#: Headers whose ids are hard for names of files, for HDF5, and for tables.
HEADERS = [
    "sp|P69905|HBA_HUMAN Hemoglobin subunit alpha OS=Homo sapiens",
    "a/b/c slashes",
    "a_b_c the name that slashes become",
    "twice first",
    "twice first",
    "twice second, with a comma",
    ".",
    "../../up and away",
    "",
    "蛋白質 é ünï",
    '"quoted",x;y\ta tab',
    f"long{'x' * 300} a long id",
    f"long{'x' * 300} another with the same beginning",
    "without no rung could embed this one",
    "last",
]
QUARANTINED = HEADERS.index("without no rung could embed this one")
RECORDS = [
    Record(row, header, "MKVLGASTPQ"[: 1 + row % 9])
    for row, header in enumerate(HEADERS, start=3)  # the first three rows were skipped
]
BATCH_RECORDS = [4, 1, 7, 3]


@dataclass(frozen=True)
class HardJob:
    """A job that is done, and where its outputs go."""

    store: Store
    manifest: Manifest
    folder: Path

    def fetch(self, name: str, **wanted: object) -> Path:
        """Write an output."""
        return Path(self.fetched(name, **wanted).path)

    def fetched(self, name: str, **wanted: object) -> Fetched:
        return fetch(self.store, self.manifest, self.folder / name, wanted=Wanted(**wanted))

    def expected(self) -> dict[str, np.ndarray]:
        """Return the datasets of the HDF5 file, texts as texts."""
        path = self.folder / "expected.h5"
        if not path.exists():
            self.fetch(path.name)
        with h5py.File(path) as file:
            found = {name: file[name][:] for name in file}
            for name in ("ids", "headers"):
                found[name] = file[name].asstr()[:]
        names = {code: name for name, code in PRECISION_CODES.items()}
        found["precision"] = np.array([names[code] for code in found["precision"].tolist()])
        return found

    def residues(self, position: int) -> np.ndarray:
        found = self.expected()
        start, end = found["offsets"][position : position + 2]
        return found["residues"][start:end]


def hard_job(
    store: Store,
    folder: Path,
    *include: Include,
    layers: tuple[int, ...] = (-1,),
    residue_dtype: str = "float32",
    classes: int | None = None,
) -> HardJob:
    """Compute the job in a store."""
    form = OutputForm(
        include=include or ("mean",),
        layers=layers,
        residue_dtype=residue_dtype,
        max_residues=7,
        classes=classes,
    )
    residues = sum(form.embedded(len(record.residues)) for record in RECORDS)
    pairs = sum(form.embedded(len(r.residues)) ** 2 for r in RECORDS) if form.contacts else 0
    manifest = manifest_of(BATCH_RECORDS, form=form, residues=residues, pairs=pairs)
    manifest = store_inputs(store, manifest, RECORDS)
    write_manifest(store, manifest)
    bad = RECORDS[QUARANTINED]
    for index in range(len(BATCH_RECORDS)):
        start = sum(BATCH_RECORDS[:index])
        rows = [record.row for record in RECORDS[start : start + BATCH_RECORDS[index]]]
        if bad.row not in rows:
            store_shard(store, manifest, index, dim=DIM)
            continue
        rows.remove(bad.row)
        store_shard(store, manifest, index, dim=DIM, rows=rows[:1])
        store_shard(store, manifest, index, dim=DIM, rung=Rung.FP32, rows=rows[1:])
        found = Instability(row=bad.row, id=bad.id, length=3, seen={Rung.FP32: SEEN})
        add_to_quarantine(store, Quarantine(job=manifest.job, batch=index, rows=(found,)))
    folder.mkdir(exist_ok=True)
    return HardJob(store, manifest, folder)


def same(found: object, expected: np.ndarray) -> None:
    """Compare numbers, NaN too, and their types."""
    values = np.asarray(found)
    assert values.dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)


def by_layer(name: str, layers: tuple[int, ...], values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of vectors ``[n, *W]`` as tables name them."""
    if len(layers) == 1:
        return {name: values}
    return {f"{name}_{layer}": values[:, k] for k, layer in enumerate(layers)}


def check_table(table: pd.DataFrame, expected: dict[str, np.ndarray]) -> None:
    for name, column in {"id": "ids", "header": "headers", "precision": "precision"}.items():
        assert table[name].tolist() == expected[column].tolist()
    for name in ("row", "length", "input_length"):
        assert table[name].tolist() == expected[f"{name}s"].tolist()
