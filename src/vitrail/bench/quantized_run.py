"""A run's model in codes, as its plan: calibrated on the run's own training images, and within a latency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vitrail.bench.latency_budget import fit_latency
from vitrail.core.errors import ConfigError
from vitrail.core.files import atomic_path
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import calibration_images
from vitrail.evaluation import measure
from vitrail.figures.quantization import quantization_figures
from vitrail.quantization import QuantizationConfig, QuantizedModel, quantize
from vitrail.tasks import load_task
from vitrail.training import load_run_data

CHECK_IMAGES = 256
"""Held-out images that codes are compared with floats on; ``vitrail evaluate`` takes all, and the files."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """What a quantised model is calibrated on.

    Attributes:
        num_images: Training images to calibrate on; their labels are not read.
        calibration_seed: Of the choice of images.
        max_latency_ms: Budget: median time of one image on this machine. Products whose codes cost most stay in float
            as far as it allows.
        runtime: That the latency is measured in: onnxruntime or openvino.
        threads: That it may use.
        quantization: What is quantised, and how.
    """

    num_images: int = 64
    calibration_seed: int = 0
    max_latency_ms: float | None = None
    runtime: str = "onnxruntime"
    threads: int = 1
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise ConfigError(f"num_images={self.num_images} is below 1; 64 is usual (--calibration 64)")
        if self.max_latency_ms is None:
            return
        if self.max_latency_ms <= 0:
            raise ConfigError(f"max_latency_ms={self.max_latency_ms:g} is not positive; give milliseconds")
        if self.quantization.max_size_mb is not None:
            raise ConfigError("give one budget: max_latency_ms puts floats back, which max_size_mb forbids")


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
        for name, figure in quantization_figures(quantized.diagnostics).items():
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
