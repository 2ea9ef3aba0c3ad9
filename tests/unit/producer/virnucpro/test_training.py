"""Training tells classes apart as well as can be, reports honestly, and is the same each time."""

from dataclasses import replace
from math import erf

import h5py
import numpy as np
import pytest

from common.errors import UserError
from producer.virnucpro.training import Examples, train
from producer.virnucpro.training_report import TrainingReport
from tests.unit.producer.virnucpro.labelled import clouds

QUICK = {"hidden": 16, "epochs": 6, "batch": 64}


def weights_of(classifier) -> bytes:
    names = ("hidden_weight", "hidden_bias", "norm_weight", "norm_bias")
    more = ("running_mean", "running_var", "output_weight", "output_bias")
    return b"".join(getattr(classifier, name).tobytes() for name in names + more)


def test_two_gaussian_clouds_are_told_apart_as_well_as_theory_allows():
    distance = 1.5
    best = (1 + erf(distance / 2)) / 2  # AUROC of a normal deviate of distance / sqrt(2)
    found = train(clouds(contigs=400, distance=distance), hidden=32, batch=128).report
    frames = sum(vars(found.held_out.frames).values())
    # The standard error of an AUROC is at most sqrt(A (1 - A) / (n / 2)) (Birnbaum 1956).
    error = (best * (1 - best) / (frames / 2)) ** 0.5
    assert best - 3 * error - 0.01 < found.frames.auroc < best + 3 * error
    assert found.chunks.auroc > found.frames.auroc
    assert found.frames.expected_calibration_error < 0.08


def test_random_labels_are_not_told_apart():
    examples = clouds(contigs=400, distance=0)
    found = train(examples, **QUICK).report
    viruses, others = found.held_out.frames.virus, found.held_out.frames.others
    # The standard error of the Mann-Whitney statistic of one distribution.
    error = ((viruses + others + 1) / (12 * viruses * others)) ** 0.5
    assert abs(found.frames.auroc - 0.5) < 4 * error
    assert found.frames.brier > 0.24


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, second, other = (train(clouds(), seed=seed, **QUICK) for seed in (3, 3, 4))
    assert weights_of(first.classifier) == weights_of(second.classifier)
    assert first.report == second.report
    assert weights_of(first.classifier) != weights_of(other.classifier)


def test_features_in_a_file_give_the_classifier_of_features_in_memory(tmp_path):
    examples = clouds()
    with h5py.File(tmp_path / "features.h5", "w") as file:
        dataset = file.create_dataset("features", data=examples.features)
        in_file = train(replace(examples, features=dataset), **QUICK)
    assert weights_of(in_file.classifier) == weights_of(train(examples, **QUICK).classifier)


def test_the_report_counts_contigs_chunks_and_frames_of_either_side():
    report = train(clouds(contigs=50, frames=20), held_out=0.2, **QUICK).report
    held_out, training = report.held_out, report.training
    assert (held_out.contigs.virus, training.contigs.virus) == (5, 20)
    assert (held_out.chunks.others, training.chunks.others) == (50, 200)
    assert (held_out.frames.virus, training.frames.virus) == (100, 400)
    assert sum(vars(report.frames.confusion).values()) == 200
    assert sum(vars(report.chunks.confusion).values()) == 100
    assert sum(each.virus + each.others for each in report.frames.reliability) == 200
    assert TrainingReport.model_validate_json(report.json_text) == report


def test_the_figures_are_those_of_the_classifier_on_contigs_it_never_saw():
    examples = clouds(contigs=30)
    # Features that name the contig: what is learnt by heart helps on held-out contigs not at all.
    names = np.eye(30, dtype=np.float32)[examples.groups] * 5
    contigs = np.random.default_rng(0).permutation(np.arange(30) % 2)
    found = train(
        replace(examples, features=names, labels=contigs[examples.groups]),
        hidden=64,
        batch=64,
        epochs=20,
        patience=20,
    ).report
    assert found.epochs[-1].loss < 0.2
    assert found.frames.auroc < 0.95


def test_a_rare_class_counts_like_a_frequent_one():
    examples = clouds(contigs=300, distance=2)
    kept = (examples.labels == 0) | (examples.groups % 10 == 0)
    rare = Examples(*(getattr(examples, name)[kept] for name in vars(examples)))
    report = train(rare, hidden=32, batch=128, epochs=20).report
    weights = report.class_weights
    assert weights["virus"] / weights["others"] == pytest.approx(
        report.training.frames.others / report.training.frames.virus
    )
    confusion = report.frames.confusion
    sensitivity = confusion.true_positives / report.held_out.frames.virus
    specificity = confusion.true_negatives / report.held_out.frames.others
    assert sensitivity > 0.75
    assert specificity > 0.75


def test_training_ends_when_the_held_out_loss_falls_no_further_and_keeps_the_best():
    seen = []
    trained = train(
        clouds(contigs=12, width=64, distance=0.5),
        hidden=64,
        batch=32,
        epochs=200,
        patience=3,
        on_epoch=seen.append,
    )
    report = trained.report
    assert tuple(seen) == report.epochs
    assert len(report.epochs) == report.best_epoch + 3 < 200
    lowest = min(each.held_out_loss for each in report.epochs)
    assert report.epochs[report.best_epoch - 1].held_out_loss == lowest
    shorter = train(
        clouds(contigs=12, width=64, distance=0.5),
        hidden=64,
        batch=32,
        epochs=report.best_epoch,
        patience=3,
    )
    assert weights_of(shorter.classifier) == weights_of(trained.classifier)


def test_frames_that_are_not_finite_are_left_out_and_counted():
    examples = clouds()
    examples.features[[0, 5, 700], [0, 3, 7]] = np.nan, np.inf, np.nan
    report = train(examples, **QUICK).report
    assert report.frames_not_finite == 3
    sides = (report.training.frames, report.held_out.frames)
    assert sum(side.others + side.virus for side in sides) == len(examples.labels) - 3
    assert np.isfinite([each.loss for each in report.epochs]).all()


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_refused(label):
    examples = clouds()
    with pytest.raises(UserError, match=r"Class (others|virus) has 0 contigs .* at least 2"):
        train(replace(examples, labels=np.full_like(examples.labels, label)))


def test_a_class_of_one_contig_with_finite_features_is_refused():
    examples = clouds(contigs=4)
    examples.features[examples.groups == 3] = np.nan
    with pytest.raises(UserError, match=r"Class virus has 1 contig .*\(20 frames left out"):
        train(examples)


def test_arrays_of_different_lengths_are_refused():
    examples = clouds()
    with pytest.raises(UserError, match="same frames"):
        replace(examples, labels=examples.labels[1:])
    with pytest.raises(UserError, match="same frames"):
        replace(examples, features=examples.features[:, 0])


def test_a_contig_of_both_classes_is_refused():
    examples = clouds()
    with pytest.raises(UserError, match=r"both classes: 1, the first is number 0"):
        replace(examples, labels=np.where(np.arange(len(examples.labels)) == 0, 1, examples.labels))


def test_a_label_that_is_neither_0_nor_1_is_refused():
    examples = clouds()
    with pytest.raises(UserError, match="neither 0 nor 1"):
        replace(examples, labels=examples.labels + 1)


@pytest.mark.parametrize(
    "option",
    [
        *({"held_out": 0.0}, {"held_out": 1.0}, {"hidden": 0}, {"epochs": 0}, {"batch": 3}),
        *({"rate": 0.0}, {"rate": float("inf")}, {"patience": 0}, {"seed": -1}),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(option):
    (name,) = option
    with pytest.raises(UserError, match=f"^{name} is"):
        train(clouds(), **option)


def test_features_too_large_for_float32_end_the_training_with_advice():
    examples = clouds()
    examples.features[:] *= 1e30
    with pytest.raises(UserError, match=r"overflowed in epoch 1 .*lower rate"):
        train(examples, **QUICK)
