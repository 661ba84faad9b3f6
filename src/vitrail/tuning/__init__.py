"""Search for the settings of a training that suit the data, with Optuna."""

from vitrail.tuning.page import write_tune_page
from vitrail.tuning.tune import tune
from vitrail.tuning.tuned import TuneReport

__all__ = ["TuneReport", "tune", "write_tune_page"]
