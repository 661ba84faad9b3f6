"""Latency, memory and energy on this machine, one runtime and one meter a file; what nobody beats.

Importing this package does not import PyTorch: the runtimes come in when they are used.
"""

from vitrail.bench.candidates import Candidate, onnx_variants
from vitrail.bench.comparison import BASELINE, bench, bench_run, bench_runs
from vitrail.bench.energy import Energy
from vitrail.bench.energy_rows import attach_energy
from vitrail.bench.environment import environment
from vitrail.bench.memory import measure_memory
from vitrail.bench.pareto import pareto_front
from vitrail.bench.protocol import BenchConfig, Clock
from vitrail.bench.results import BenchResult, append_results, latest_results, read_results
from vitrail.bench.session import RUNTIMES, Session, open_session

__all__ = [
    "BASELINE",
    "RUNTIMES",
    "BenchConfig",
    "BenchResult",
    "Candidate",
    "Clock",
    "Energy",
    "Session",
    "append_results",
    "attach_energy",
    "bench",
    "bench_run",
    "bench_runs",
    "environment",
    "latest_results",
    "measure_memory",
    "onnx_variants",
    "open_session",
    "pareto_front",
    "read_results",
]
