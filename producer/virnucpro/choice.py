"""Which chunks and models a classifier is for."""

from pathlib import Path

from common.errors import UserError
from common.model_source import ModelSource
from producer.virnucpro.classifier import Classifier
from producer.virnucpro.prediction import check_width

#: The models of VirNucPro's published classifiers.
DNA_MODEL, PROTEIN_MODEL = "dnabert_s", "esm2_t36_3B_UR50D"


def chunk_for(classifier: Classifier, asked: int | None, path: Path) -> int:
    """Return the bases of a chunk.

    Raises:
        UserError: the classifier was trained on others, or nothing says how many.
    """
    known = classifier.chunk
    if known is None and asked is None:
        raise UserError(
            f"{path.name} does not say which chunks it was trained on: give --chunk 300 or --chunk "
            "500."
        )
    if known is not None and asked not in (None, known):
        raise UserError(
            f"--chunk {asked}: {path.name} was trained on chunks of {known} bases, and scores of "
            f"others mean little. Leave out --chunk, or give a classifier for chunks of {asked}."
        )
    return known or asked or 0


def models_for(classifier: Classifier, dna: str | None, protein: str | None) -> tuple[str, str]:
    """Return the models of the DNA and of the proteins.

    Raises:
        UserError: the classifier was trained on the features of others.
    """
    known = classifier.models or (DNA_MODEL, PROTEIN_MODEL)
    found = dna or known[0], protein or known[1]
    if classifier.models is not None and found != known:
        raise UserError(
            f"The classifier was trained on the features of {' and '.join(known)}, and has no "
            f"meaning for those of {' and '.join(found)}. Leave out --dna-model and "
            "--protein-model."
        )
    return found


def check_models(classifier: Classifier, models: tuple[str, str]) -> None:
    """Check that features of models fit a classifier, as far as their widths are known here.

    Raises:
        UserError: they do not, or a model is for the other molecule.
    """
    check_molecules(models)
    specs = [ModelSource.parse(model).spec() for model in models]
    widths = [spec.dim for spec in specs if spec is not None]
    if len(widths) == len(models):
        check_width(classifier, sum(widths))


def check_molecules(models: tuple[str, str]) -> None:
    """Check that the first model is for DNA, and the second for proteins, as far as is known here.

    Raises:
        UserError: one is for the other molecule.
    """
    for model, name, option in zip(
        models, ("dna", "protein"), ("--dna-model", "--protein-model"), strict=True
    ):
        spec = ModelSource.parse(model).spec()
        if spec is not None and spec.family.alphabet.name != name:
            raise UserError(f"{option} {model}: this is no model of {name}.")
