"""A run's model in codes, as its plan: calibrated on the run's own training images, and within a latency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vitrail.bench.latency_budget import fit_latency
from vitrail.core.config import check_choices
from vitrail.core.errors import ConfigError
from vitrail.core.files import atomic_path
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import calibration_images
from vitrail.evaluation import measure
from vitrail.quantization import QuantizationConfig, QuantizedModel, quantize
from vitrail.tasks import load_task
from vitrail.training import load_run_data

CHECK_IMAGES = 256
"""Held-out images that codes are compared with floats on; ``vitrail evaluate`` takes all, and the files."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """What a quantised model is calibrated on.

    Attributes:
        num_images: number of training images to calibrate on; their labels are not read.
        calibration_seed: random seed that selects the calibration images.
        max_latency_ms: latency limit in ms (median of one image, this machine). Layers that lose most accuracy in 8
            bits stay in float while the limit allows. Default: no limit.
        runtime: runtime in which the latency is measured.
        threads: number of CPU threads used to measure latency.
        quantization: the quantisation itself.
    """

    num_images: int = 64
    calibration_seed: int = 0
    max_latency_ms: float | None = None
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    threads: int = 1
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)

    def __post_init__(self) -> None:
        check_choices(self)
        for name, usual in (("num_images", 64), ("threads", 1)):
            if getattr(self, name) < 1:
                raise ConfigError(f"is below 1; {usual} is usual", **{name: getattr(self, name)})
        if self.max_latency_ms is None:
            return
        if self.max_latency_ms <= 0:
            raise ConfigError("is not positive; give milliseconds", max_latency_ms=self.max_latency_ms)
        if self.quantization.max_size_mb is not None:
            both = {"max_latency_ms": self.max_latency_ms, "quantization.max_size_mb": self.quantization.max_size_mb}
            raise ConfigError("give one budget: the first puts floats back, which the second forbids", **both)


def quantize_run(run: Run, config: CalibrationConfig, *, progress: bool = False) -> QuantizedModel:
    """Calibrate, and write ``run.quantization`` and the pictures; an interrupted call is gone on with.

    Raises:
        QuantizationError: the model cannot be quantised so, or the latency cannot be met.
    """
    preprocessing = Preprocessing.from_dict(run.read()["preprocessing"])
    train = load_run_data(run).train
    task = load_task(run)
    images = task.inputs(calibration_images(train, preprocessing, config.num_images, config.calibration_seed))
    partial = run.quantization.with_suffix(".partial.json")
    quantized = quantize(task, images, config=config.quantization, progress=progress, resume=partial)
    if config.max_latency_ms is not None:
        fitted = fit_latency(
            task,
            quantized,
            images,
            max_latency_ms=config.max_latency_ms,
            runtime=config.runtime,
            threads=config.threads,
        )
        quantized = fitted.quantized
    quantized.plan.save(run.quantization)
    if quantized.diagnostics is not None:
        run.figures.mkdir(exist_ok=True)
        for name, figure in quantized.diagnostics.figures().items():
            with atomic_path(run.figures / f"{name}.png") as path:
                figure.savefig(path, dpi=120)
    return quantized


def compare_with_float(
    run: Run, quantized: QuantizedModel, *, num_images: int = CHECK_IMAGES, progress: bool = False
) -> dict[str, dict[str, Any]]:
    """Of "float" and "codes" the task's scores on held-out images, as :func:`~vitrail.evaluation.measure` gives them.

    Codes are simulated in PyTorch, whether a runtime executes them or not.
    """
    preprocessing = Preprocessing.from_dict(run.read()["preprocessing"])
    samples = load_run_data(run).held_out.sample(num_images, 0)
    task = load_task(run).eval()
    return measure(task, {"float": task, "codes": quantized}, samples, preprocessing, progress=progress)
