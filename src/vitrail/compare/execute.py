"""Training, quantisation and test of a comparison's runs, resumable and divisible among machines."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from vitrail.bench import BenchConfig
from vitrail.compare.outcome import has_outcome, write_outcome
from vitrail.compare.plan_file import Cell, ComparePlan, Entry
from vitrail.compare.quantized import quantize_trained, quantized_run
from vitrail.core.errors import ConfigError, RunError
from vitrail.evaluation import RobustnessConfig
from vitrail.runs.description import Description
from vitrail.runs.folder import is_finished
from vitrail.runs.quantize import CalibrationConfig
from vitrail.runs.robustness import measure_run_robustness, read_robustness
from vitrail.runs.run import Run
from vitrail.runs.stage_times import expected_seconds
from vitrail.runs.train import train
from vitrail.training.config import differing_settings

Job = tuple[Cell, int]
"""A cell and a seed."""


def job_list(plan: ComparePlan) -> list[Job]:
    """All cells with the first seed, then with the next, so that an interrupted comparison has complete seeds."""
    return [(cell, seed) for seed in plan.seeds for cell in plan.cells]


def shard_of(jobs: list[Job], shard: str) -> list[Job]:
    """The jobs of one machine of several, e.g. ``2/3``; each job is in exactly one shard.

    Raises:
        ConfigError: the shard is not i/n with 1 <= i <= n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(f"shard '{shard}' is not i/n with i from 1 to n; 1/2 and 2/2 are the two of two machines")
    return jobs[index - 1 :: count]


def cell_run(folder: Path, cell: Cell, seed: int) -> Run:
    """The trained run of a cell and a seed."""
    return Run(folder / cell.folder / f"seed-{seed}")


def entry_run(folder: Path, entry: Entry, seed: int) -> Run:
    """The run of an entry and a seed; a quantised run lies inside its trained run."""
    run = cell_run(folder, entry.cell, seed)
    return run if entry.quantization is None else quantized_run(run, entry.quantization)


def timed_plan(plan: ComparePlan, minutes: float, shard: str = "1/1") -> ComparePlan:
    """The plan with a time for each training, so that all with their tests take ``minutes`` on each machine.

    Args:
        plan: plan of the comparison.
        minutes: time of all trainings of the shard.
        shard: share of the machine, e.g. ``2/3``; every share gives its trainings the same time.

    Raises:
        ConfigError: the time is not above 0, or the shard is not i/n.
    """
    jobs = job_list(plan)
    shard_of(jobs, shard)
    most = len(shard_of(jobs, f"1/{shard.partition('/')[2]}"))  # no share has more trainings than the first
    timed = replace(plan, training=plan.training | {"minutes": minutes / most})
    timed.config(timed.cells[0], timed.seeds[0])  # checks the time
    return timed


def run_cell(plan: ComparePlan, folder: Path, job: Job, *, progress: bool = False) -> bool:
    """Train one run, apply every quantisation of the plan, and test all; finished parts are skipped.

    Returns:
        True if a model was trained or quantised.

    Raises:
        RunError: the folder has a run with other settings.
        VitrailError: training, quantisation or export failed.
    """
    run = cell_run(folder, *job)
    with run.writing():
        config = plan.config(*job)
        if run.description.exists():
            if config.minutes is None:  # the time of a run that was started with one
                config = replace(config, minutes=run.read().training.minutes)
            differences = differing_settings(run.read().training, config)
            if differences:
                raise RunError(
                    f"run {run.folder} was trained with other settings: {'; '.join(differences)}; "
                    f"delete it, or choose another folder with --out"
                )
        todo = not is_finished(run)
        if todo:
            train(config, run=run, resume=True, progress=progress, follows=_tests(plan, run))
            for path in (run.predictions, run.scores, run.robustness):
                path.unlink(missing_ok=True)
        if not has_outcome(run):
            write_outcome(run)
        if plan.robustness and (not run.robustness.exists() or "translation" not in read_robustness(run)["summary"]):
            measure_run_robustness(run, RobustnessConfig(groups=("translation",)))
        for quantization in plan.quantization:
            todo |= quantize_trained(run, quantization, threads=plan.threads, progress=progress)
        return todo


def _tests(plan: ComparePlan, run: Run) -> Callable[[float], float]:
    """The function from the seconds of a training step to those of what a cell does with the trained model."""
    bench = BenchConfig(runtimes=plan.runtimes, threads=(plan.threads,))

    @cache
    def description() -> Description:
        return run.read()

    def seconds(step_seconds: float) -> float:
        costs = expected_seconds(description(), CalibrationConfig(), bench, step_seconds)
        ways = [expected_seconds(description(), way, bench, step_seconds) for way in plan.quantization]
        quantized = sum(way[stage] for way in ways for stage in ("Quantize", "Export", "Evaluate"))
        return costs["Evaluate"] + quantized + costs["Bench"] / len(plan.seeds)

    return seconds
