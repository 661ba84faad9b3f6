"""Pages: one of everything that a run has, one of the fronts of several runs."""

from vitrail.report.page import write_report

__all__ = ["write_report"]
