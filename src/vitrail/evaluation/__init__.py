"""How good and how sure a model is."""

from vitrail.evaluation.classification import ClassificationReport, ClassResult, ConfidenceBin, evaluate
from vitrail.evaluation.described import describe_findings
from vitrail.evaluation.made_pictures import write_samples
from vitrail.evaluation.measure import evaluate_task, measure
from vitrail.evaluation.predict import AnswerTrust, Prediction, Predictions, SkippedImage, predict_images
from vitrail.evaluation.robustness import (
    GROUPS,
    RobustnessConfig,
    measure_robustness,
    robustness_table,
)
from vitrail.evaluation.statistics import Interval, bootstrap, mcnemar_exact, wilson

__all__ = [
    "GROUPS",
    "AnswerTrust",
    "ClassResult",
    "ClassificationReport",
    "ConfidenceBin",
    "Interval",
    "Prediction",
    "Predictions",
    "RobustnessConfig",
    "SkippedImage",
    "bootstrap",
    "describe_findings",
    "evaluate",
    "evaluate_task",
    "mcnemar_exact",
    "measure",
    "measure_robustness",
    "predict_images",
    "robustness_table",
    "wilson",
    "write_samples",
]
