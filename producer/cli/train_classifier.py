"""``producer train-classifier``."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from common.errors import UserError
from common.paths import check_new_file
from producer.cli.contigs import USUAL_CONTIGS, Contigs
from producer.cli.features import Machine, computed
from producer.cli.options import Broker, Flag, Many, StoreUrl, to_path
from producer.cli.reading import Reading
from producer.cli.translating import translated
from producer.output.partial import written
from producer.submission.frames import Frames, joined
from producer.submission.records import as_sources
from producer.terminal.console import console
from producer.terminal.frames import report_frames
from producer.terminal.training import report_training, training_display
from producer.translation.options import Translation
from producer.virnucpro.calibration import calibration_svg
from producer.virnucpro.choice import DNA_MODEL, check_molecules
from producer.virnucpro.classifier_file import SUFFIX, write_classifier
from producer.virnucpro.examples import examples_of
from producer.virnucpro.features import features_of
from producer.virnucpro.prediction import Contigs as ContigTable
from producer.virnucpro.training import Trained, train

#: The model of the proteins by default: as accurate as 3B in Broad's trial, and 8 times as fast.
PROTEIN_MODEL = "esm2_t33_650M_UR50D"


def train_classifier(
    *,
    positive: Annotated[tuple[str, ...], Many],
    negative: Annotated[tuple[str, ...], Many],
    output: Annotated[Path, Parameter(alias="-o", converter=to_path)],
    model: str = PROTEIN_MODEL,
    dna_model: str = DNA_MODEL,
    chunk: PositiveInt = 500,
    contigs: Contigs = USUAL_CONTIGS,
    held_out: float = 0.2,
    hidden: PositiveInt = 512,
    epochs: PositiveInt = 50,
    seed: int = 0,
    overwrite: Annotated[bool, Flag] = False,
    local: Annotated[bool, Flag] = False,
    gpus: str = "all",
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Train a classifier for predict on one's own contigs, as for a smaller model of proteins.

    Contigs are translated and embedded as predict does, on the fleet or with --local. The network
    is trained on this machine. A part of the contigs is held out, and measured.

    Parameters
    ----------
    positive
        Contigs of viruses (several: --positive a.fna b.fna).
    negative
        Other contigs (several: --negative c.fna d.fna).
    output
        File for the classifier, .safetensors. Beside it a report (.json) and a picture of the
        calibration (.svg) are written.
    model
        Model of the proteins.
    dna_model
        Model of the DNA.
    chunk
        Bases of a chunk at most.
    held_out
        Share of the contigs that is held out.
    hidden
        Width of the hidden layer.
    epochs
        Most passes over the examples; training ends earlier if nothing improves any more.
    seed
        Of everything random: with the same one, the same machine gives the same classifier.
    overwrite
        Replace files.
    local
        Run without a fleet, as predict --local does.
    gpus
        GPUs to use with --local: all, none for the CPU, or numbers such as 0,1.
    """
    files = places(output, overwrite=overwrite)
    models = dna_model, model
    check_molecules(models)
    translation = Translation.of("six-frame", chunk=chunk, code=contigs.code)
    reading = contigs.reading(models)
    machine = Machine(local, gpus, store, broker)
    with (
        TemporaryDirectory(prefix="virnucpro-") as temporary,
        as_sources([*positive, *negative]) as source,
    ):
        folder = Path(temporary)
        both = [
            frames_of(reading, translation, names, folder / name)
            for name, names in (("positive", positive), ("negative", negative))
        ]
        frames = joined(both, folder)
        viruses = both[0].report.contigs
        with computed(reading, frames, source, output.with_suffix(".h5"), machine) as (_, joint):
            if joint is None:
                raise UserError("No contig has a frame: there is nothing to train on.")
            rows = joint.rows()
            with console.status("Reading the features …"):
                examples = examples_of(
                    features_of(*rows),
                    ContigTable.read(frames.contigs),
                    viruses,
                    folder,
                    sum(each.dim for each in rows),
                )
            with training_display(epochs) as show:
                trained = train(
                    examples,
                    held_out=held_out,
                    hidden=hidden,
                    epochs=epochs,
                    seed=seed,
                    on_epoch=show,
                )
        named = replace(trained.classifier, chunk=chunk, models=models)
        write_files(files, replace(trained, classifier=named))
    report_training(trained.report, files)


def places(output: Path, *, overwrite: bool) -> tuple[Path, Path, Path]:
    """Return the files of a classifier, its report and its picture.

    Raises:
        UserError: one is there, or the name has another suffix.
    """
    if output.suffix != SUFFIX:
        raise UserError(f"{output}: name a file that ends in {SUFFIX} (-o).", path=output)
    found = output, output.with_suffix(".json"), output.with_suffix(".svg")
    for path in found:
        check_new_file(path, overwrite=overwrite)
    return found


def frames_of(
    reading: Reading, translation: Translation, names: tuple[str, ...], folder: Path
) -> Frames:
    """Write the frames of some inputs into a new folder."""
    folder.mkdir()
    with as_sources(names) as source:
        frames = translated(reading, translation, source, folder)
    report_frames(frames)
    return frames


def write_files(files: tuple[Path, Path, Path], trained: Trained) -> None:
    """Write a classifier, its report and its picture; the classifier last.

    Raises:
        UserError: one cannot be written.
    """
    classifier, report, picture = files
    figures = trained.report.frames
    svg = calibration_svg(figures.reliability, figures.brier)
    with written(picture) as path:
        path.write_text(svg, encoding="utf-8")
    with written(report) as path:
        path.write_text(trained.report.json_text + "\n", encoding="utf-8")
    with written(classifier) as path:
        write_classifier(path, trained.classifier)
