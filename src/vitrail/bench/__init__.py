"""Latency, memory and energy of candidates on this machine, and the Pareto front of what was measured.

Importing this package does not import PyTorch: the runtimes come in when they are used.
"""

from vitrail.bench.candidates import Candidate
from vitrail.bench.energy import Energy
from vitrail.bench.environment import environment
from vitrail.bench.front import pareto_front
from vitrail.bench.memory import measure_memory
from vitrail.bench.protocol import BenchConfig, Clock
from vitrail.bench.results import BenchResult, append_results, latest_results, read_results
from vitrail.bench.side_by_side import BASELINE, bench

__all__ = [
    "BASELINE",
    "BenchConfig",
    "BenchResult",
    "Candidate",
    "Clock",
    "Energy",
    "append_results",
    "bench",
    "environment",
    "latest_results",
    "measure_memory",
    "pareto_front",
    "read_results",
]
