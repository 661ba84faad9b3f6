"""Accuracy of a classifier on pictures that differ from those of training."""

from vitrail.evaluation.robustness.config import GROUPS, RobustnessConfig
from vitrail.evaluation.robustness.corruptions import CORRUPTIONS, corrupt
from vitrail.evaluation.robustness.curves import measure_robustness
from vitrail.evaluation.robustness.perturbations import rotate, shift, zoom
from vitrail.evaluation.robustness.summary import robustness_table

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "RobustnessConfig",
    "corrupt",
    "measure_robustness",
    "robustness_table",
    "rotate",
    "shift",
    "zoom",
]
