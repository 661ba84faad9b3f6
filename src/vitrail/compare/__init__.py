"""Comparison of several models, trained with one recipe, one split and several seeds."""

from vitrail.compare.collect import CellResult, Comparison, collect
from vitrail.compare.execute import job_list, run_cell, shard_of, timed_plan
from vitrail.compare.page import write_comparison
from vitrail.compare.plan_file import Cell, ComparePlan, Entry, NamedQuantization, read_plan

__all__ = [
    "Cell",
    "CellResult",
    "ComparePlan",
    "Comparison",
    "Entry",
    "NamedQuantization",
    "collect",
    "job_list",
    "read_plan",
    "run_cell",
    "shard_of",
    "timed_plan",
    "write_comparison",
]
