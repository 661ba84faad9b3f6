"""The plan of a run's quantised model, calibrated on the run's training images and within a latency limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError, QuantizationError, RunError, VitrailError
from vitrail.core.files import read_json, write_json
from vitrail.core.progress import Whole
from vitrail.data import calibration_images
from vitrail.evaluation import measure
from vitrail.evaluation.classification import EVALUATING
from vitrail.figures.quantization import quantization_figures
from vitrail.figures.save import save_figures
from vitrail.quantization import QuantizationConfig, QuantizationPlan, QuantizedModel, quantize
from vitrail.quantization.stages import expected_stages
from vitrail.runs.data import load_run_data
from vitrail.runs.latency_budget import FITTING, fit_latency
from vitrail.runs.load import load_task
from vitrail.runs.run import Run, writes

CHECK_IMAGES = 256
"""Number of held-out images to compare codes with floats; ``vitrail evaluate`` takes all images and the files."""

LATENCY_SHARE, COMPARISON_SHARE = 20.0, 3.0
"""Guesses of times over that of the calibration."""


SHORT_NAMES = {"bits": "weight_bits", "calibration": "num_images"}
"""Option of the command line -> field of the configurations, where the two differ."""


def with_field_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the names of the fields, where some are given by the options of the command line.

    Raises:
        ConfigError: a setting is given by both of its names.
    """
    for short, name in SHORT_NAMES.items():
        if short in settings and name in settings:
            raise ConfigError(f"{short} and {name} are one setting; give it once")
    return {SHORT_NAMES.get(name, name): value for name, value in settings.items()}


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """The configuration of a calibration.

    Attributes:
        num_images: number of training images to calibrate on; their labels are not read.
        calibration_seed: random seed that selects the calibration images.
        max_latency_ms: latency limit in ms (median of one image, this machine). Layers that lose most accuracy in 8
            bits stay in float while the limit allows. Default: no limit.
        runtime: runtime in which the latency is measured.
        threads: number of CPU threads used to measure latency.
        quantization: configuration of the quantisation.
    """

    num_images: int = 64
    calibration_seed: int = 0
    max_latency_ms: float | None = None
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    threads: int = 1
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)

    def __post_init__(self) -> None:
        convert_fields(self)
        for name, usual in (("num_images", 64), ("threads", 1)):
            if getattr(self, name) < 1:
                raise ConfigError(f"is below 1; {usual} is usual", **{name: getattr(self, name)})
        if self.max_latency_ms is None:
            return
        if self.max_latency_ms <= 0:
            raise ConfigError("is not positive; give milliseconds", max_latency_ms=self.max_latency_ms)
        if self.quantization.max_size_mb is not None:
            both = {"max_latency_ms": self.max_latency_ms, "quantization.max_size_mb": self.quantization.max_size_mb}
            raise ConfigError("give one budget: the first returns layers to float, the second forbids it", **both)


def whole_quantization(config: CalibrationConfig) -> Whole:
    """The works of a quantisation, and of the comparison with the float model, as a whole."""
    stages = expected_stages(config.quantization)
    if config.max_latency_ms is not None:
        stages.append((FITTING, LATENCY_SHARE))
    return Whole([*stages, (EVALUATING, COMPARISON_SHARE)])


@writes
def quantize_run(run: Run, config: CalibrationConfig, *, progress: bool = False) -> QuantizedModel:
    """Calibrate, and write ``run.quantization`` and the pictures; an interrupted call continues where it stopped.

    Raises:
        QuantizationError: the model cannot be quantised like this, or the latency limit cannot be met.
    """
    with whole_quantization(config):
        return _quantize(run, config, progress)


def _quantize(run: Run, config: CalibrationConfig, progress: bool) -> QuantizedModel:
    train, task = load_run_data(run).train, load_task(run)
    images = task.inputs(
        calibration_images(train, run.read().preprocessing, config.num_images, config.calibration_seed)
    )
    quantized = quantize(task, images, config=config.quantization, progress=progress, resume=run.partial_quantization)
    if config.max_latency_ms is not None:
        quantized = fit_latency(
            task,
            quantized,
            images,
            max_latency_ms=config.max_latency_ms,
            runtime=config.runtime,
            threads=config.threads,
            progress=progress,
        ).quantized
    write_json(run.quantization, quantized.plan.to_dict() | {"weights_hash": run.weights_hash})
    if quantized.diagnostics is not None:
        save_figures(quantization_figures(quantized.diagnostics), run.figures)
    return quantized


def load_plan(run: Run) -> QuantizationPlan:
    """The plan of a run's quantised model.

    Raises:
        RunError: there is no plan, or it was made for other weights.
        VitrailError: the file is not a plan.
    """
    run = Run.open(run.folder, needs=("quantization",))
    values = read_json(run.quantization)
    made_for = values.get("weights_hash") if isinstance(values, dict) else None
    if made_for and made_for != run.weights_hash:
        raise RunError(
            f"{run.quantization.name} was made for other weights than {run.weights.name}; make it again with: vitrail "
            f"quantize {run.folder}"
        )
    try:
        return QuantizationPlan.from_dict(values)
    except VitrailError as error:
        raise QuantizationError(f"{run.quantization}: {error}") from error


def compare_with_float(
    run: Run, quantized: QuantizedModel, *, num_images: int = CHECK_IMAGES, progress: bool = False
) -> dict[str, dict[str, Any]]:
    """Scores of "float" and "codes" on held-out images, as from :func:`~vitrail.evaluation.measure`.

    Integers are simulated in PyTorch, even if a runtime executes them.
    """
    samples = load_run_data(run).held_out.sample(num_images, 0)
    task = load_task(run)
    predictors = {"float": task, "codes": quantized}
    return measure(task, predictors, samples, run.read().preprocessing, progress=progress)
