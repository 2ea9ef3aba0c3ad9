"""``producer predict``."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from cyclopts.types import PositiveInt

from producer.cli.contigs import USUAL_CONTIGS, Contigs
from producer.cli.features import Machine, computed, computed_on
from producer.cli.options import Broker, Flag, StoreUrl, to_path
from producer.cli.reading import Inputs, Reading, check_options
from producer.cli.translating import Asked, requests_of_frames, translated
from producer.fleet.fleet import Fleet
from producer.fleet.joint import JointJob
from producer.input.sources import AnySource
from producer.submission.frames import Frames
from producer.terminal.console import console, say
from producer.terminal.frames import report_frames
from producer.terminal.prediction import (
    report_comparison,
    report_prediction,
    warn_of_short_contigs,
)
from producer.translation.options import Translation
from producer.virnucpro.calls import Groups
from producer.virnucpro.choice import check_models, chunk_for, models_for
from producer.virnucpro.classifier import Classifier
from producer.virnucpro.classifier_file import read_classifier
from producer.virnucpro.feature_files import write_feature_files
from producer.virnucpro.features import features_of
from producer.virnucpro.folder import WORKING, check_folder, keep_frames, written_into
from producer.virnucpro.page import write_page
from producer.virnucpro.prediction import Contigs as ContigTable
from producer.virnucpro.prediction import Prediction
from producer.virnucpro.prediction import predict as write_prediction
from producer.virnucpro.record import UsedModel, record_of, write_record
from producer.virnucpro.result_files import ScoreColumns
from producer.virnucpro.sampling import Comparison, compare, sample_of, scores_of_rows


def predict(
    *inputs: Inputs,
    classifier: Annotated[Path, Parameter(converter=to_path)],
    output: Annotated[Path, Parameter(alias="-o", converter=to_path)],
    contigs: Contigs = USUAL_CONTIGS,
    chunk: PositiveInt | None = None,
    protein_model: str | None = None,
    dna_model: str | None = None,
    scores: ScoreColumns = "original",
    group: str | None = None,
    features: Annotated[Path | None, Parameter(converter=to_path)] = None,
    compare: Literal["fp32"] | None = None,
    overwrite: Annotated[bool, Flag] = False,
    local: Annotated[bool, Flag] = False,
    gpus: str = "all",
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Call contigs viral or not, as VirNucPro does, and write the files that it writes.

    Contigs are cut into chunks and translated in six frames, two models embed each frame and its
    DNA, and a classifier scores both. An interrupted prediction goes on with the same command.

    Parameters
    ----------
    inputs
        Contigs, or reads: files, folders, patterns in quotes, - or s3://bucket/key, as submit has
        them.
    classifier
        VirNucPro's 300_model.pth or 500_model.pth, a state dict of such a model, or what producer
        train-classifier wrote. Nothing in the file is run.
    output
        Folder for the files: prediction_results.txt, prediction_results_highestscore.csv,
        contigs.tsv, frames.faa, frames.fna, report.html and prediction.json. Those of an earlier
        prediction are replaced.
    chunk
        Bases of a chunk at most; default: what the classifier was trained on.
    protein_model
        Model of the proteins; default: the classifier's, or esm2_t36_3B_UR50D.
    dna_model
        Model of the DNA; default: the classifier's, or dnabert_s.
    scores
        Columns of prediction_results_highestscore.csv: those of VirNucPro, or of Broad's fork.
    group
        Regular expression: contigs are called together if it finds the same in their names, as
        (NODE_\\d+) does for Broad's fork.
    features
        Folder for VirNucPro's own feature files (.pt) too.
    compare
        Compute a sample in FP32 too, and say how many frames and chunks change their label.
    overwrite
        Write into a folder with other files, which stay.
    local
        Run without a fleet: start a Redis and a worker for each GPU (or one on the CPU) on this
        machine, for one model after the other, and stop them at the end.
    gpus
        GPUs to use with --local: all, none for the CPU, or numbers such as 0,1.
    """
    check_options(inputs, "predict")
    check_folder(output, overwrite=overwrite)
    groups = Groups(group)
    read = read_classifier(classifier)
    models = models_for(read, dna_model, protein_model)
    check_models(read, models)
    translation = Translation.of(
        "six-frame", chunk=chunk_for(read, chunk, classifier), code=contigs.code
    )
    reading = contigs.reading(models)
    machine = Machine(local, gpus, store, broker)
    with reading.source(inputs) as source, written_into(output) as parts:
        frames = translated(reading, translation, source, parts)
        report_frames(frames)
        table = ContigTable.read(frames.contigs)
        warn_of_short_contigs(table.lengths)
        with computed(reading, frames, source, output / WORKING, machine) as (fleet, joint):
            prediction = scored(joint, read, frames, parts, scores, groups)
            if features is not None:
                write_features(joint, features)
            compared = None
            if compare is not None and joint is not None:
                compared = compared_with_fp32(fleet, joint, read, reading, frames, parts, source)
            used = used_models(joint)
        record = record_of(classifier.name, read, used, frames, prediction, compared)
        write_page(parts, record, prediction)
        write_record(parts, record)
        keep_frames(parts, frames)
    if compared is not None:
        report_comparison(compared)
    report_prediction(prediction, output, grouped=group is not None)


def scored(
    joint: JointJob | None,
    classifier: Classifier,
    frames: Frames,
    folder: Path,
    scores: ScoreColumns,
    groups: Groups,
) -> Prediction:
    """Write the result files, and show how far they are."""
    total = 0
    with console.status("Scoring the frames …") as status:

        def show(more: int) -> None:
            nonlocal total
            total += more
            status.update(f"Scoring the frames: {total:,} of {frames.report.frames:,} …")

        found = iter(()) if joint is None else features_of(*joint.rows())
        return write_prediction(
            found, classifier, frames, folder, scores=scores, groups=groups, on_frames=show
        )


def write_features(joint: JointJob | None, folder: Path) -> None:
    """Write VirNucPro's feature files."""
    if joint is None:
        say(f"There is no frame: nothing was written into {folder}.")
        return
    with console.status(f"Writing the features into {folder} …"):
        write_feature_files(features_of(*joint.rows()), joint.rows()[0].dim, folder)


def used_models(joint: JointJob | None) -> list[UsedModel]:
    """Return the models of a job, with their weights."""
    if joint is None:
        return []
    return [
        UsedModel(
            model=job.manifest.model,
            weights=str(rows.attributes["weights"]),
            precision=str(job.manifest.rung),
        )
        for job, rows in zip(joint.jobs, joint.rows(), strict=True)
    ]


def compared_with_fp32(
    fleet: Fleet | None,
    joint: JointJob,
    classifier: Classifier,
    reading: Reading,
    frames: Frames,
    folder: Path,
    source: AnySource,
) -> Comparison:
    """Compute a sample of an input in FP32 too, and compare the labels."""
    assert fleet is not None
    report = frames.report
    place = folder / "sample"
    place.mkdir()
    sample = sample_of(frames, report.chunks - report.chunks_without_frame, place)
    say(f"Computing {sample.frames.report.frames:,} frames in FP32 too.")
    requests = requests_of_frames(reading, sample.frames, precision="fp32")
    asked = Asked(requests, sample.frames, source, "fp32")
    other = computed_on(fleet, asked, reading)
    return compare(
        scores_of_rows(features_of(*joint.rows()), classifier, sample.rows),
        scores_of_rows(features_of(*other.rows()), classifier, np.arange(len(sample.rows))),
    )
