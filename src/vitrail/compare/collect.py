"""From the runs of a comparison to one result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrail.bench import BenchConfig, BenchResult, Candidate, bench, environment, pareto_front
from vitrail.compare.execute import cell_run, held_out, read_predictions
from vitrail.compare.plan import Cell, ComparePlan
from vitrail.core.errors import RunError
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import calibration_images, fit_image
from vitrail.evaluation import Interval, bootstrap, mcnemar_exact, read_robustness
from vitrail.explain import token_similarity
from vitrail.export import export_onnx
from vitrail.models.complexity import complexity
from vitrail.tasks import load_task

NUM_COLLAPSE_IMAGES = 64
"""Held-out images over which the similarity of tokens is averaged."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What is known of one model.

    Attributes:
        name, model, fields: of the cell.
        params, macs: of one image.
        top1: one a seed, in the order of the seeds.
        interval: of their mean, over seeds and images.
        difference: of top-1 to the baseline, paired by seed and image; None for the baseline itself.
        p_values: McNemar's exact test against the baseline, one a seed.
        train_seconds: mean over the seeds.
        collapse: mean cosine similarity of different tokens of the last level, one a seed.
        consistency: share of images whose predicted class stays under a shift, one a seed.
        shifted_top1: top-1 averaged over all shifts, one a seed.
        measurements: latency and memory of the first seed's model, one a runtime.
    """

    name: str
    model: str
    fields: dict[str, Any]
    params: int
    macs: int
    top1: tuple[float, ...]
    interval: Interval
    difference: Interval | None = None
    p_values: tuple[float, ...] = ()
    train_seconds: float
    collapse: tuple[float, ...] = ()
    consistency: tuple[float, ...] = ()
    shifted_top1: tuple[float, ...] = ()
    measurements: tuple[BenchResult, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison's result.

    Attributes:
        question, baseline, training: of the plan.
        seeds: those that every cell was trained with.
        missing: how many runs of the plan are not trained yet.
        num_images: held-out images that all were tested on.
        cells: in the order of the plan.
        fronts: cost ("params", "macs", or "cpu_ms RUNTIME") -> names of the cells that nobody beats, by rising cost.
        place: the machine that latency was measured on.
    """

    question: str
    baseline: str
    training: dict[str, Any]
    seeds: tuple[int, ...]
    missing: int
    num_images: int
    cells: tuple[CellResult, ...]
    fronts: dict[str, tuple[str, ...]]
    place: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def collect(
    plan: ComparePlan, folder: Path, bench_config: BenchConfig | None = None, *, progress: bool = False
) -> Comparison:
    """Compare the runs that are there, and measure their latency side by side.

    Args:
        plan: what was trained.
        folder: where.
        bench_config: how latency is measured; the plan's threads and runtimes with the usual settings by default.
        progress: show a bar.

    Raises:
        RunError: no seed has been trained for every cell, or two runs were tested on different images.
    """
    seeds = [s for s in plan.seeds if all(cell_run(folder, cell, s).predictions.exists() for cell in plan.cells)]
    missing = sum(not cell_run(folder, cell, s).predictions.exists() for cell in plan.cells for s in plan.seeds)
    if not seeds:
        raise RunError(f"{folder} has no seed that every cell was trained with; {missing} runs are missing")
    right = {cell.name: _right(folder, cell, seeds) for cell in plan.cells}
    reference = right[plan.reference.name]
    bench_config = bench_config or BenchConfig(runtimes=plan.runtimes, threads=(plan.threads,), energy=plan.energy)
    measurements = _measure(plan, folder, seeds[0], bench_config, progress=progress)
    cells = [
        _result(plan, cell, [cell_run(folder, cell, s) for s in seeds], right[cell.name], reference)
        for cell in plan.cells
    ]
    cells = [replace(cell, measurements=tuple(measurements[cell.name])) for cell in cells]
    return Comparison(
        question=plan.question,
        baseline=plan.reference.name,
        training=plan.training,
        seeds=tuple(seeds),
        missing=missing,
        num_images=reference.shape[1],
        cells=tuple(cells),
        fronts=_fronts(cells),
        place=environment(),
    )


def _right(folder: Path, cell: Cell, seeds: Sequence[int]) -> np.ndarray:
    """(seeds, images), in the order of the names."""
    rows, known = [], None
    for seed in seeds:
        run = cell_run(folder, cell, seed)
        right, names = read_predictions(run)
        order = np.argsort(names)
        if known is not None and not np.array_equal(known, names[order]):
            raise RunError(f"{run.folder} was tested on other images than the others; delete the comparison's folder")
        known = names[order]
        rows.append(right[order])
    return np.stack(rows)


def _result(plan: ComparePlan, cell: Cell, runs: Sequence[Run], right: np.ndarray, reference: np.ndarray) -> CellResult:
    if right.shape != reference.shape:
        raise RunError(f"{cell.name} was tested on {right.shape[1]} images, the baseline on {reference.shape[1]}")
    task = load_task(runs[0])
    preprocessing = Preprocessing.from_dict(runs[0].read()["preprocessing"])
    counts = complexity(task.backbone, preprocessing.image_size)
    compared = cell.name != plan.reference.name
    difference = right.astype(float) - reference.astype(float)
    robust = [read_robustness(run)["summary"]["translation"] for run in runs] if plan.robustness else []
    return CellResult(
        name=cell.name,
        model=cell.model,
        fields=cell.fields,
        params=counts.params,
        macs=counts.macs,
        top1=tuple(right.mean(1).tolist()),
        interval=bootstrap(right.astype(float)),
        difference=bootstrap(difference) if compared else None,
        p_values=tuple(mcnemar_exact(*pair) for pair in zip(right, reference, strict=True)) if compared else (),
        train_seconds=float(np.mean([run.read()["trained"]["seconds"] for run in runs])),
        collapse=tuple(collapse_of(run) for run in runs) if plan.collapse else (),
        consistency=tuple(float(one["consistency"]) for one in robust),
        shifted_top1=tuple(float(one["top1"]) for one in robust),
    )


def collapse_of(run: Run) -> float:
    """Mean cosine similarity between different tokens of the last level, over some held-out images."""
    preprocessing = Preprocessing.from_dict(run.read()["preprocessing"])
    images = held_out(run).sample(NUM_COLLAPSE_IMAGES, 0)
    fitted = torch.stack([fit_image(images[i][0], preprocessing) for i in range(len(images))])
    with torch.inference_mode():
        (level,) = load_task(run).backbone.forward_intermediates(
            preprocessing.normalize(fitted), 1, intermediates_only=True
        )
    return float(token_similarity(level.flatten(2).transpose(1, 2)).mean())


def _measure(
    plan: ComparePlan, folder: Path, seed: int, config: BenchConfig, *, progress: bool
) -> dict[str, list[BenchResult]]:
    """All cells take turns in every runtime."""
    runs = {cell.name: cell_run(folder, cell, seed) for cell in plan.cells}
    shape = Preprocessing.from_dict(next(iter(runs.values())).read()["preprocessing"]).image_size
    candidates = []
    for runtime in config.runtimes:
        for name, run in runs.items():
            onnx = not runtime.startswith("torch")
            if onnx and not run.onnx("float").exists():
                _export(run)
            source = run.onnx("float") if onnx else run.folder
            file = run.onnx("float") if onnx else run.weights
            candidates.append(Candidate(runtime=runtime, variant=name, source=source, file=file))
    rows = bench(candidates, config, (3, *shape), progress=progress)
    return {name: [row for row in rows if row.variant == name] for name in runs}


def _export(run: Run) -> None:
    preprocessing = Preprocessing.from_dict(run.read()["preprocessing"])
    images = calibration_images(held_out(run), preprocessing, 32, 0)
    export_onnx(
        load_task(run), run.onnx("float"), preprocessing=preprocessing, classes=run.read()["classes"], images=images
    )


def _fronts(cells: Sequence[CellResult]) -> dict[str, tuple[str, ...]]:
    costs: dict[str, list[float | None]] = {
        "params": [cell.params for cell in cells],
        "macs": [cell.macs for cell in cells],
    }
    for index, row in enumerate(cells[0].measurements):
        costs[f"cpu_ms {row.runtime}"] = [cell.measurements[index].cpu_ms_median for cell in cells]
    fronts = {}
    for name, values in costs.items():
        known = [(cell, value) for cell, value in zip(cells, values, strict=True) if value is not None]
        front = pareto_front([(value, cell.interval.mean) for cell, value in known])
        fronts[name] = tuple(known[i][0].name for i in front)
    return fronts
