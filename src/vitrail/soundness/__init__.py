"""Is this data sound? What ``vitrail check`` finds in a data set of any task, before a model learns from it."""

from vitrail.soundness.check import check_data
from vitrail.soundness.config import CheckConfig
from vitrail.soundness.soundness import Doubt, Example, Finding, Soundness, Understood

__all__ = ["CheckConfig", "Doubt", "Example", "Finding", "Soundness", "Understood", "check_data"]
