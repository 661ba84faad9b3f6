"""How good and how sure a model is."""

from vitrail.evaluation.classification import ClassificationReport, ClassResult, ConfidenceBin, evaluate
from vitrail.evaluation.figures import confusion_figure, reliability_figure
from vitrail.evaluation.predict import Prediction, Predictions, SkippedImage, predict_images

__all__ = [
    "ClassResult",
    "ClassificationReport",
    "ConfidenceBin",
    "Prediction",
    "Predictions",
    "SkippedImage",
    "confusion_figure",
    "evaluate",
    "predict_images",
    "reliability_figure",
]
