"""How good and how sure a model is."""

from vitrail.evaluation.classification import ClassificationReport, ClassResult, ConfidenceBin, evaluate
from vitrail.evaluation.made_pictures import write_samples
from vitrail.evaluation.measure import evaluate_task, measure
from vitrail.evaluation.predict import Prediction, Predictions, SkippedImage, predict_images
from vitrail.evaluation.robustness import (
    GROUPS,
    RobustnessConfig,
    measure_robustness,
    robustness_table,
)
from vitrail.evaluation.statistics import Interval, bootstrap, mcnemar_exact

__all__ = [
    "GROUPS",
    "ClassResult",
    "ClassificationReport",
    "ConfidenceBin",
    "Interval",
    "Prediction",
    "Predictions",
    "RobustnessConfig",
    "SkippedImage",
    "bootstrap",
    "evaluate",
    "evaluate_task",
    "mcnemar_exact",
    "measure",
    "measure_robustness",
    "predict_images",
    "robustness_table",
    "write_samples",
]
