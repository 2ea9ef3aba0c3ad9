"""What a prediction was made with, and what it found, as a document."""

from collections.abc import Sequence
from pathlib import Path

from common import __version__
from common.job.joint import FramesReport
from common.wire.messages import Document
from producer.submission.frames import Frames
from producer.virnucpro.classifier import Classifier
from producer.virnucpro.folder import RECORD
from producer.virnucpro.prediction import Prediction
from producer.virnucpro.sampling import Comparison


class UsedClassifier(Document):
    """A classifier."""

    file: str  # its name, without its folder
    fingerprint: str  # of its numbers
    features: int
    chunk: int | None  # that it is known to be trained on


class UsedModel(Document):
    """A model that made features."""

    model: str
    weights: str  # the fingerprint of its weights
    precision: str


class Compared(Document):
    """A sample that was computed in FP32 too."""

    frames: int
    frames_changed: int
    chunks: int
    chunks_changed: int
    largest_difference: float


class PredictionRecord(Document):
    """The document ``prediction.json``."""

    version: str = __version__
    input: str
    classifier: UsedClassifier
    models: tuple[UsedModel, ...]  # of DNA first; none if there is no frame
    frames: FramesReport
    frames_without_score: int
    calls: dict[str, dict[str, int]]  # contigs by call and tier
    compared: Compared | None = None


def record_of(
    file: str,
    classifier: Classifier,
    models: Sequence[UsedModel],
    frames: Frames,
    prediction: Prediction,
    compared: Comparison | None,
) -> PredictionRecord:
    """Return the document of a prediction.

    Args:
        file: the name of the classifier's file.
    """
    return PredictionRecord(
        input=frames.input,
        classifier=UsedClassifier(
            file=file,
            fingerprint=classifier.fingerprint,
            features=classifier.features,
            chunk=classifier.chunk,
        ),
        models=tuple(models),
        frames=frames.report,
        frames_without_score=prediction.frames_without_score,
        calls=prediction.counts(),
        compared=None
        if compared is None
        else Compared(
            frames=compared.frames,
            frames_changed=compared.frames_changed,
            chunks=compared.chunks,
            chunks_changed=compared.chunks_changed,
            largest_difference=compared.largest,
        ),
    )


def write_record(folder: Path, record: PredictionRecord) -> None:
    (folder / RECORD).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
