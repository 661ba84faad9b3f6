"""How good and how sure a model is."""

from vitrail.evaluation.classification import ClassificationReport, ClassResult, ConfidenceBin, evaluate
from vitrail.evaluation.figures import confusion_figure, figures_of, reliability_figure
from vitrail.evaluation.measure import evaluate_task, measure
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
    "evaluate_task",
    "figures_of",
    "measure",
    "predict_images",
    "reliability_figure",
]
