"""How good, how sure, and how large a model is."""

from vitrail.evaluation.classification import ClassificationReport, ClassResult, ConfidenceBin, evaluate
from vitrail.evaluation.complexity import Complexity, complexity
from vitrail.evaluation.figures import confusion_figure, reliability_figure
from vitrail.evaluation.predict import Prediction, Predictions, SkippedImage, predict_images

__all__ = [
    "ClassResult",
    "ClassificationReport",
    "Complexity",
    "ConfidenceBin",
    "Prediction",
    "Predictions",
    "SkippedImage",
    "complexity",
    "confusion_figure",
    "evaluate",
    "predict_images",
    "reliability_figure",
]
