"""``vitrail quantize``: integers instead of floats, after training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from vitrail.bench.latency_budget import fit_latency
from vitrail.cli.display import Display, Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.cli.run_data import load_run_data
from vitrail.core.errors import ConfigError
from vitrail.core.files import atomic_path
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import calibration_images
from vitrail.quantization import QuantizationConfig, QuantizedModel, quantize as quantize_model
from vitrail.tasks import load_task

WEIGHTS_AND_ACTIVATIONS = ((True, "weights"), (False, "activations"))


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
            raise ConfigError(f"num_images={self.num_images} is below 1; 64 is usual")
        if self.max_latency_ms is None:
            return
        if self.max_latency_ms <= 0:
            raise ConfigError(f"max_latency_ms={self.max_latency_ms:g} is not positive; give milliseconds")
        if self.quantization.max_size_mb is not None:
            raise ConfigError("give one budget: max_latency_ms puts floats back, which max_size_mb forbids")


@configured(
    CalibrationConfig(),
    names={"quantization.weight_bits": "bits"},
    groups={
        "Calibration": ("num_images", "calibration_seed"),
        "Latency": ("max_latency_ms", "runtime", "threads"),
        "Quantization": ("quantization",),
    },
)
def quantize(config: CalibrationConfig, run: Path, /, *, output: OutputOptions = Output()) -> None:
    """Turn a run's model into codes of 8 bits or fewer, after training.

    A few dozen images of the training part, without their labels, go through the model, and everything is chosen by
    how much its output would feel it: scales, what is moved from activations into weights, how weights are rounded.
    The decisions are written to `quantization.json` of the run, a plan from which `vitrail export` builds the file,
    with pictures of the noise of every layer in `figures/`.

    Weights may have 2 to 8 bits, or each its own within a budget. Activations of 8 bits are executed by ONNX Runtime
    and OpenVINO; narrower ones are simulated only, and cannot be exported.

    **Examples**

    ```sh
    vitrail quantize runs/photos
    vitrail quantize runs/photos --bits 4
    vitrail quantize runs/photos --average-bits 5
    vitrail quantize runs/photos --max-size-mb 3 --allocation exact
    vitrail quantize runs/photos --max-latency-ms 8 --runtime openvino
    vitrail quantize runs/photos --preset mptq --bits 4 --activation-bits 4
    vitrail quantize runs/photos --keep-float depthwise 'stages.0.*'
    ```

    Args:
        run: Run folder.
    """
    with display(output) as shown:
        quantized = quantize_run(Run.open(run), config, progress=shown.progress)
        show_plan(shown, quantized)
        shown.result(quantized.plan.to_dict())


def quantize_run(run: Run, config: CalibrationConfig, *, progress: bool = False) -> QuantizedModel:
    """Calibrate, and write ``run.quantization`` and the pictures; an interrupted call is gone on with."""
    preprocessing = Preprocessing.from_dict(run.read()["preprocessing"])
    train = load_run_data(run).train
    task = load_task(run)
    images = task.inputs(calibration_images(train, preprocessing, config.num_images, config.calibration_seed))
    partial = run.quantization.with_suffix(".partial.json")
    quantized = quantize_model(task, images, config=config.quantization, progress=progress, resume=partial)
    if config.max_latency_ms is not None:
        budget, place = config.max_latency_ms, {"runtime": config.runtime, "threads": config.threads}
        quantized = fit_latency(task, quantized, images, max_latency_ms=budget, **place).quantized  # type: ignore[arg-type]
    quantized.plan.save(run.quantization)
    if quantized.diagnostics is not None:
        run.figures.mkdir(exist_ok=True)
        for name, figure in quantized.diagnostics.figures().items():
            with atomic_path(run.figures / f"{name}.png") as path:
                figure.savefig(path, dpi=120)
    return quantized


def show_plan(shown: Display, quantized: QuantizedModel) -> None:
    """How much is quantised, to how many bits, and what is not."""
    plan = quantized.plan
    shown.say(f"{len(plan.operands)} operands quantised, calibrated on {plan.num_images} images")
    means = [f"{plan.average_bits(weights=w):.3g} bits for {name}" for w, name in WEIGHTS_AND_ACTIVATIONS]
    shown.say(f"  on average {' and '.join(means)}")
    if plan.simulated:
        shown.say(
            f"  simulated: {len(plan.simulated)} operands have codes that no runtime executes, among them "
            f"{plan.simulated[0]}; for a file, quantise with --activation-bits 8"
        )
    kept = Counter(text.partition(": ")[2] for text in plan.skipped)
    for text in (
        *plan.notes,
        *(f"{count} operation{'s' if count > 1 else ''} {reason}" for reason, count in kept.items()),
    ):
        shown.say(f"  {text}")
