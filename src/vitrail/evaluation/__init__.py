"""How good and how sure a model is."""

from vitrail.evaluation.classification import ClassificationReport, ClassResult, ConfidenceBin, evaluate
from vitrail.evaluation.figures import confusion_figure, figures_of, reliability_figure
from vitrail.evaluation.measure import evaluate_task, measure
from vitrail.evaluation.predict import Prediction, Predictions, SkippedImage, predict_images
from vitrail.evaluation.robustness import (
    GROUPS,
    RobustnessConfig,
    measure_robustness,
    read_robustness,
    robustness_figures,
    robustness_table,
    write_robustness,
)
from vitrail.evaluation.samples import write_samples
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
    "confusion_figure",
    "evaluate",
    "evaluate_task",
    "figures_of",
    "mcnemar_exact",
    "measure",
    "measure_robustness",
    "predict_images",
    "read_robustness",
    "reliability_figure",
    "robustness_figures",
    "robustness_table",
    "write_robustness",
    "write_samples",
]
