"""What the stages after a training will take, before they are begun: a rough estimate from the time of a training step.

The numbers are those of the demo on two cores; what a stage takes beside its images are imports, compilers and fresh
processes. Where stages have been measured, the others are scaled by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from vitrail.bench import BenchConfig
from vitrail.core.errors import VitrailError
from vitrail.runs.description import Description
from vitrail.runs.quantize import CalibrationConfig
from vitrail.runs.run import Run
from vitrail.runtimes import find_runtime
from vitrail.training.recorder import read_metrics

FORWARD = 1 / 3
"""Time of an image in a forward pass over that in a training step."""

QUANTIZING = 40
"""Time of a calibration image over that of an image in a training step."""

LARGEST_FACTOR = 5.0
"""Measured stages scale the others by this factor at most, and by its inverse at least."""


def expected_seconds(
    description: Description, calibration: CalibrationConfig, bench: BenchConfig, step_seconds: float
) -> dict[str, float]:
    """Stage -> seconds that it will take, roughly.

    Args:
        description: description of the run.
        calibration: configuration of the quantisation.
        bench: configuration of the measurement.
        step_seconds: seconds of a training step.
    """
    image = step_seconds / description.training.batch_size
    held_out = description.data.num_test or description.data.num_val
    files = sum(1 + (find_runtime(name).format == "onnx") for name in bench.runtimes)
    entries = files * len(bench.threads) * len(bench.batch_size)
    timing = max(bench.min_seconds, 2 * bench.min_runs * entries * FORWARD * image)
    return {
        "Quantize": 10 + QUANTIZING * calibration.num_images * image,
        "Export": 25 + 300 * image,
        "Evaluate": 3 + held_out * files * FORWARD * image,
        "Bench": entries * (bench.warmup_seconds + 5 * bench.memory) + min(timing, bench.budget_seconds),
        "Report": 2,
    }


def following(run: Run, calibration: CalibrationConfig, bench: BenchConfig) -> Callable[[float], float]:
    """The function from the seconds of a training step to those of all stages that follow the training."""

    @cache
    def description() -> Description:
        return run.read()  # training has written it by then

    return lambda step_seconds: sum(expected_seconds(description(), calibration, bench, step_seconds).values())


def seconds_left(
    run: Run, calibration: CalibrationConfig, bench: BenchConfig, measured: Mapping[str, float]
) -> float | None:
    """Seconds of the stages that are not measured yet; None where the curve of the training cannot be read.

    Args:
        run: trained run.
        calibration: configuration of the quantisation.
        bench: configuration of the measurement.
        measured: stage -> seconds that it took.
    """
    try:
        epoch_seconds = max(row["seconds"] for row in read_metrics(run.metrics))
    except (VitrailError, KeyError, ValueError):  # no file, no such column, no rows
        return None
    description = run.read()
    num_steps = -(-description.data.num_train // description.training.batch_size)
    expected = expected_seconds(description, calibration, bench, epoch_seconds / max(num_steps, 1))
    known = [name for name in expected if name in measured]
    factor = sum(measured[name] for name in known) / sum(expected[name] for name in known) if known else 1.0
    factor = min(max(factor, 1 / LARGEST_FACTOR), LARGEST_FACTOR)
    return factor * sum(seconds for name, seconds in expected.items() if name not in measured)
