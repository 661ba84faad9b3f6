"""The result of a comparison, collected from its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitrail.bench import BenchConfig, BenchResult, environment, pareto_front
from vitrail.compare.execute import cell_run, entry_run
from vitrail.compare.latency import measure_entries
from vitrail.compare.outcome import Outcome, has_outcome, read_outcome, score_of
from vitrail.compare.plan_file import ComparePlan, Entry
from vitrail.compare.quantized import EXECUTED, SIMULATED, executed_in
from vitrail.core.errors import RunError
from vitrail.data import fit_image
from vitrail.evaluation import Interval, bootstrap, mcnemar_exact
from vitrail.explain import token_similarity
from vitrail.models.complexity import complexity
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.quantize import load_plan
from vitrail.runs.robustness import read_robustness
from vitrail.runs.run import Run
from vitrail.tasks import Score

NUM_COLLAPSE_IMAGES = 64
"""Number of held-out images for the mean similarity of tokens."""

FLOAT_BITS = 32.0

Values = NDArray[np.float64]
"""Scores (seeds, images), or (seeds, 1) for a score of all images together."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference to another entry, paired by seed, and by image if images are right or wrong.

    Attributes:
        to: name of the other entry.
        interval: confidence interval of the mean difference of the score.
        p_values: p-values of McNemar's exact test, one per seed; empty for a score of all images together.
    """

    to: str
    interval: Interval
    p_values: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of one model, as trained or quantised.

    Attributes:
        name, model, fields: name, model and fields of the cell; the quantisation's name follows the name after a comma.
        quantization: configuration of the quantisation; None for the model as trained.
        computed_by: backend of the scores: "torch", "onnxruntime", or "simulated" if no runtime executes the codes of
            one seed or more.
        weight_bits, activation_bits: mean bit widths of the quantised tensors, over the seeds.
        size_bytes: size of the first seed's file, ONNX if there is one, else the weights; None if it is only simulated.
        params, macs: number of parameters, and MACs of one image; quantisation changes neither.
        scores: values of the task's first score, one per seed, in the order of the seeds.
        interval: confidence interval of the mean score, over seeds, and over images if images are right or wrong.
        difference: difference to the baseline; None for the baseline itself.
        float_difference: difference to the model as trained; None for that model itself.
        train_seconds: mean training time over the seeds.
        collapse: mean cosine similarity of different tokens of the last level, one per seed; empty if quantised.
        consistency: share of images whose predicted class stays under a shift, one per seed; empty if quantised.
        shifted_top1: top-1 averaged over all shifts, one per seed; empty if quantised.
        measurements: latency and memory of the first seed's model, one per runtime that can run it.
    """

    name: str
    model: str
    fields: dict[str, Any]
    quantization: dict[str, Any] | None = None
    computed_by: str = "torch"
    weight_bits: float = FLOAT_BITS
    activation_bits: float = FLOAT_BITS
    size_bytes: int | None = None
    params: int
    macs: int
    scores: tuple[float, ...]
    interval: Interval
    difference: Difference | None = None
    float_difference: Difference | None = None
    train_seconds: float
    collapse: tuple[float, ...] = ()
    consistency: tuple[float, ...] = ()
    shifted_top1: tuple[float, ...] = ()
    measurements: tuple[BenchResult, ...] = ()

    @property
    def label(self) -> str:
        """The name, with "(simulated)" if no runtime executes the model."""
        return self.name + (" (simulated)" if self.computed_by == SIMULATED else "")

    def measured_in(self, runtime: str) -> BenchResult | None:
        """The measurement in a runtime; None if it cannot run the model."""
        return next((row for row in self.measurements if row.runtime == runtime), None)

    def cost(self, name: str) -> float | None:
        """A cost that has a front; None if it is unknown or does not apply to the entry.

        Args:
            name: "size_bytes", "cpu_ms RUNTIME", or "params" or "macs", which do not apply to quantised models.
        """
        if name in ("params", "macs"):
            return None if self.quantization is not None else float(getattr(self, name))
        if name == "size_bytes":
            return self.size_bytes
        row = self.measured_in(name.removeprefix("cpu_ms "))
        return None if row is None else row.cpu_ms_median


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        question, baseline, training: question, baseline and recipe of the plan.
        score: compared score.
        per_image: True if images are right or wrong and are resampled; else intervals are over seeds alone.
        seeds: seeds with a run of every entry.
        missing: number of missing runs of the plan, quantised ones included.
        num_images: number of held-out images in the test.
        runtimes: measured runtimes.
        cells: results in the order of the plan, each model followed by its quantised forms.
        fronts: cost (see :meth:`CellResult.cost`) -> names of the cells on its Pareto front, by rising cost.
        place: machine of the latency measurement.
    """

    question: str
    baseline: str
    training: dict[str, Any]
    score: Score
    per_image: bool
    seeds: tuple[int, ...]
    missing: int
    num_images: int
    runtimes: tuple[str, ...]
    cells: tuple[CellResult, ...]
    fronts: dict[str, tuple[str, ...]]
    place: dict[str, Any]

    @property
    def quantized(self) -> bool:
        """Whether it has quantised models."""
        return any(cell.quantization is not None for cell in self.cells)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def collect(
    plan: ComparePlan, folder: Path, bench_config: BenchConfig | None = None, *, progress: bool = False
) -> Comparison:
    """Compare the finished runs, and measure their latency side by side.

    Args:
        plan: plan of the comparison.
        folder: folder of the runs.
        bench_config: configuration of the measurement. Default: runtimes, threads and energy meter of the plan.
        progress: show a bar.

    Raises:
        RunError: no seed has a run of every entry, or two runs were tested on different images.
    """
    there = {seed: [has_outcome(entry_run(folder, entry, seed)) for entry in plan.entries] for seed in plan.seeds}
    seeds = tuple(seed for seed, found in there.items() if all(found))
    missing = sum(found.count(False) for found in there.values())
    if not seeds:
        raise RunError(f"{folder} has no seed that every cell was trained with; {missing} runs are missing")
    runs = {entry.name: [entry_run(folder, entry, seed) for seed in seeds] for entry in plan.entries}
    first = read_outcome(runs[plan.reference.name][0])
    values = {name: _values(name, [read_outcome(run) for run in several], first) for name, several in runs.items()}
    bench_config = bench_config or BenchConfig(runtimes=plan.runtimes, threads=(plan.threads,), energy=plan.energy)
    measurements = measure_entries(plan, folder, seeds[0], bench_config, progress=progress)
    results = [_result(plan, entry, runs[entry.name], values, first.per_image) for entry in plan.entries]
    cells = tuple(
        cell if cell.computed_by == SIMULATED else replace(cell, measurements=measurements[cell.name])
        for cell in results
    )
    score = score_of(cell_run(folder, plan.cells[0], seeds[0]))
    return Comparison(
        question=plan.question,
        baseline=plan.reference.name,
        training=plan.training,
        score=score,
        per_image=first.per_image,
        seeds=seeds,
        missing=missing,
        num_images=len(first.names),
        runtimes=bench_config.runtimes,
        cells=cells,
        fronts=_fronts(cells, bench_config.runtimes, score),
        place=environment(),
    )


def _values(name: str, outcomes: Sequence[Outcome], first: Outcome) -> Values:
    for outcome in outcomes:
        if outcome.names != first.names:
            raise RunError(f"{name} was tested on other images than the others; delete the comparison's folder")
    return np.stack([outcome.values for outcome in outcomes])


def _result(
    plan: ComparePlan, entry: Entry, runs: Sequence[Run], values: dict[str, Values], per_image: bool
) -> CellResult:
    trained = Entry(cell=entry.cell)
    references = (plan.reference, trained)
    differences = [
        None if other == entry else _difference(other.name, entry.name, values, per_image) for other in references
    ]
    counts = complexity(load_task(runs[0]), runs[0].read().image_size)
    return CellResult(
        name=entry.name,
        model=entry.cell.model,
        fields=entry.cell.fields,
        params=counts.params,
        macs=counts.macs,
        scores=tuple(values[entry.name].mean(1).tolist()),
        interval=bootstrap(values[entry.name]),
        difference=differences[0],
        float_difference=differences[1],
        train_seconds=float(np.mean([_train_seconds(run) for run in runs])),
        **(_measured_as_trained(plan, runs) if entry == trained else _codes(entry, runs)),
    )


def _train_seconds(run: Run) -> float:
    trained = run.read().trained
    return trained.seconds if trained else math.nan


def _difference(other: str, name: str, values: dict[str, Values], per_image: bool) -> Difference:
    pairs = zip(values[name] > 0.5, values[other] > 0.5, strict=True) if per_image else ()
    return Difference(
        to=other,
        interval=bootstrap(values[name] - values[other]),
        p_values=tuple(mcnemar_exact(*pair) for pair in pairs),
    )


def _codes(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    """Result fields that only quantised models have."""
    plans = [load_plan(run) for run in runs]
    executed = all(executed_in(run) == EXECUTED for run in runs)
    assert entry.quantization is not None
    return {
        "quantization": asdict(entry.quantization),
        "computed_by": EXECUTED if executed else SIMULATED,
        "size_bytes": runs[0].onnx("int8").stat().st_size if executed else None,
        "weight_bits": float(np.mean([plan.average_bits(weights=True) for plan in plans])),
        "activation_bits": float(np.mean([plan.average_bits(weights=False) for plan in plans])),
    }


def _measured_as_trained(plan: ComparePlan, runs: Sequence[Run]) -> dict[str, Any]:
    """Result fields that only models as trained have."""
    robust = [read_robustness(run)["summary"]["translation"] for run in runs] if plan.robustness else []
    file = runs[0].onnx("float") if runs[0].onnx("float").exists() else runs[0].weights
    return {
        "size_bytes": file.stat().st_size,
        "collapse": tuple(collapse_of(run) for run in runs) if plan.collapse else (),
        "consistency": tuple(float(one["consistency"]) for one in robust),
        "shifted_top1": tuple(float(one["top1"]) for one in robust),
    }


def collapse_of(run: Run) -> float:
    """Mean cosine similarity of different tokens of the last level, over a sample of held-out images."""
    preprocessing = run.read().preprocessing
    images = load_run_data(run).held_out.sample(NUM_COLLAPSE_IMAGES, 0)
    fitted = torch.stack([fit_image(images[i][0], preprocessing) for i in range(len(images))])
    with torch.inference_mode():
        (level,) = load_task(run).backbone.forward_intermediates(
            preprocessing.normalize(fitted), 1, intermediates_only=True
        )
    return float(token_similarity(level.flatten(2).transpose(1, 2)).mean())


def _fronts(cells: Sequence[CellResult], runtimes: Sequence[str], score: Score) -> dict[str, tuple[str, ...]]:
    quantized = any(cell.quantization is not None for cell in cells)
    costs = ["params", "macs", *(["size_bytes"] if quantized else []), *(f"cpu_ms {name}" for name in runtimes)]
    fronts = {}
    for cost in costs:
        known = [(cell, value) for cell in cells if (value := cell.cost(cost)) is not None]
        front = pareto_front([(value, score.rank(cell.interval.mean)) for cell, value in known])
        fronts[cost] = tuple(known[i][0].name for i in front)
    return fronts
