"""HTML pages of one run and of several runs."""

from vitrail.report.page import write_report

__all__ = ["write_report"]
