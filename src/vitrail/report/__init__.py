"""What a run achieved: its evaluation on held-out images, and one HTML page that shows all of it."""

from vitrail.report.artefacts import evaluate_run
from vitrail.report.page import write_report
from vitrail.report.robustness import robustness_pictures, runs_by_recipe

__all__ = ["evaluate_run", "robustness_pictures", "runs_by_recipe", "write_report"]
