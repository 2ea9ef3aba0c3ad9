"""The layouts of AnnData, bio_embeddings and esm-extract, read as their users read them."""

import csv

import anndata
import h5py
import numpy as np
import pytest
import torch

from common.embeddings.file import load
from tests.support.outputs import DIM, HEADERS, QUARANTINED, by_layer, check_table, same

ALL = ("mean", "per_residue", "bos", "max", "std")
LAYERS = (-1, 2)

every_number_of_layers = pytest.mark.parametrize("layers", [(-1,), LAYERS], ids=["one", "two"])


# --- AnnData ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_h5ad_has_the_scores_of_records(job_with):
    perplexities = ("pseudo_perplexity_unmasked", "pseudo_perplexity")
    job = job_with("mean", *perplexities, "class_logits", classes=3)
    path, expected = job.fetch("e.h5ad"), job.expected()
    found = anndata.read_h5ad(path)
    for name in perplexities:
        same(found.obs[name].to_numpy(), expected[name])
    same(found.obsm["class_logits"], expected["class_logits"])
    same(found.X, expected["mean"])
    job.fetch("e.h5ad")  # it is the same job's: it is replaced
    alone = anndata.read_h5ad(job.fetch("alone.h5ad", include=perplexities[:1]))
    assert (alone.X, alone.n_obs) == (None, len(HEADERS))


@every_number_of_layers
def test_h5ad_is_read_by_anndata(job_with, layers):
    job = job_with("std", "bos", "mean", "max", layers=layers)
    path, expected = job.fetch("e.h5ad"), job.expected()
    with pytest.warns(UserWarning, match="names are not unique"):
        found = anndata.read_h5ad(path)
    assert found.shape == (len(HEADERS), DIM)
    assert found.obs_names.tolist() == expected["ids"].tolist()
    assert found.var_names.tolist() == [str(number) for number in range(DIM)]
    check_table(found.obs.assign(id=expected["ids"]), expected)
    for name, values in by_layer("mean", layers, expected["mean"]).items():
        same(found.X if name == "mean" else found.layers[name.removeprefix("mean_")], values)
    for kind in ("bos", "max", "std"):
        for name, values in by_layer(kind, layers, expected[kind]).items():
            same(found.obsm[name], values)
    assert found.uns["job"] == job.manifest.job
    assert found.uns["rows_without_numbers"] == 1


def test_h5ad_is_read_in_backed_mode_and_is_what_to_anndata_makes(job_with, tmp_path):
    job = job_with("mean")
    path = job.fetch("e.h5ad")
    job.fetch("e.h5")
    with pytest.warns(UserWarning, match="names are not unique"):
        of_file = load(job.folder / "e.h5").to_anndata()
    with pytest.warns(UserWarning, match="names are not unique"):
        backed = anndata.read_h5ad(path, backed="r")
    same(backed.X[:3], of_file.X[:3])
    assert backed.obs_names.tolist() == of_file.obs_names.tolist()
    backed.file.close()
    with pytest.warns(UserWarning, match="names are not unique"):
        found = anndata.read_h5ad(path)
    found.obs_names_make_unique()
    found.write_h5ad(tmp_path / "again.h5ad")


# --- HDF5, one dataset per id -------------------------------------------------------------------


def read_as_bio_embeddings(path) -> dict[str, list[np.ndarray]]:
    """Read a file by ``original_id`` as bio_embeddings' users do, repeated ids included."""
    found: dict[str, list[np.ndarray]] = {}
    with h5py.File(path) as file:
        for dataset in file.values():
            found.setdefault(dataset.attrs["original_id"], []).append(np.array(dataset))
    return found


@pytest.mark.parametrize("kind", ALL)
def test_one_dataset_per_id_is_read_by_original_id(job_with, kind):
    job = job_with(*ALL, residue_dtype="float16")
    path, expected = job.fetch("u.h5", layout="uniprot", include=(kind,)), job.expected()
    found = read_as_bio_embeddings(path)
    assert sum(map(len, found.values())) == len(HEADERS)
    for position, id_ in enumerate(expected["ids"]):
        earlier = expected["ids"][:position].tolist().count(id_)
        vectors = found[id_][earlier]
        if kind == "per_residue":
            same(vectors, job.residues(position))
        else:
            same(vectors, expected[kind][position])


def test_names_of_datasets_are_the_ids_where_they_can_be(job_with):
    job = job_with("mean")
    with h5py.File(job.fetch("u.h5", layout="uniprot")) as file:
        expected = job.expected()
        same(file["sp|P69905|HBA_HUMAN"], expected["mean"][0])
        assert {"a_b_c", "a_b_c~2", "twice", "twice~2", "twice~3", "row_9", "row_11"} <= set(file)
        assert all(isinstance(item, h5py.Dataset) for item in file.values())
        marked = {name for name in file if file[name].attrs.get("precision") == "none"}
        assert marked == {"without"}
        assert np.isnan(file["without"]).all()
        assert file.attrs["job"] == job.manifest.job


# --- .pt files of esm-extract -------------------------------------------------------------------


@every_number_of_layers
def test_pt_files_are_those_of_esm_extract(job_with, layers):
    job = job_with(*ALL, layers=layers, residue_dtype="float16")
    folder, expected = job.fetch("pt", layout="esm"), job.expected()
    with (folder / "index.csv").open(newline="") as file:
        index = list(csv.DictReader(file))
    assert [line["label"] for line in index] == HEADERS
    assert [line["precision"] for line in index] == expected["precision"].tolist()
    assert len({line["file"] for line in index}) == len(HEADERS)
    for position, line in enumerate(index):
        found = torch.load(folder / line["file"], weights_only=True)
        assert set(found) == {
            "label",
            "representations",
            "mean_representations",
            "bos_representations",
            "max_representations",
            "std_representations",
        }
        assert found["label"] == HEADERS[position]
        assert list(found["mean_representations"]) == list(layers)
        values = {
            "representations": job.residues(position),
            "mean_representations": expected["mean"][position],
            **{
                f"{kind}_representations": expected[kind][position]
                for kind in ("bos", "max", "std")
            },
        }
        for name, of_layers in values.items():
            for k, layer in enumerate(layers):
                of_layer = of_layers if len(layers) == 1 else of_layers[..., k, :]
                same(found[name][layer].numpy(), of_layer)
    assert {path.parent for path in folder.rglob("*")} == {folder}


def test_a_file_has_the_name_that_esm_extract_gives_where_it_can_be(job_with):
    job = job_with("mean")
    folder = job.fetch("pt", layout="esm")
    found = torch.load(folder / f"{HEADERS[0]}.pt", weights_only=True)
    assert found["label"] == HEADERS[0]
    names = {path.name for path in folder.iterdir()}
    assert {"twice first.pt", "twice first~2.pt", "a_b_c slashes.pt"} <= names
    assert all(len(name.encode()) <= 255 for name in names)
    assert torch.isnan(
        torch.load(folder / f"{HEADERS[QUARANTINED]}.pt")["mean_representations"][-1]
    ).all()
