"""``vitrail quantize``: calibrate a run's model for 8-bit integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from vitrail.cli.display import Display, Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.cli.run_data import load_run_data
from vitrail.core.errors import ConfigError
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import calibration_images
from vitrail.quantization import QuantizationConfig, QuantizedModel, quantize as quantize_model
from vitrail.tasks import load_task


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """What a quantised model is calibrated on.

    Attributes:
        num_images: Training images to calibrate on; a hundred are enough, more cost time only.
        calibration_seed: Of the choice of images.
        quantization: What is quantised, and how.
    """

    num_images: int = 128
    calibration_seed: int = 0
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise ConfigError(f"num_images={self.num_images} is below 1; 128 is usual")


@configured(
    CalibrationConfig(),
    groups={"Calibration": ("num_images", "calibration_seed"), "Quantization": ("quantization",)},
)
def quantize(config: CalibrationConfig, run: Path, /, *, output: OutputOptions = Output()) -> None:
    """Calibrate a run's model for 8-bit integers.

    Images of the training part go through the model, and the range of every activation is noted; weights get a scale
    for each output channel. The decisions are written to `quantization.json` of the run: a readable plan, from which
    `vitrail export` builds the 8-bit file.

    **Examples**

    ```sh
    vitrail quantize runs/photos
    vitrail quantize runs/photos --num-images 512
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
    """Calibrate, and write ``run.quantization``."""
    preprocessing = Preprocessing.from_dict(run.read()["preprocessing"])
    train = load_run_data(run).train
    images = calibration_images(train, preprocessing, config.num_images, config.calibration_seed)
    quantized = quantize_model(load_task(run), images, config=config.quantization, progress=progress)
    quantized.plan.save(run.quantization)
    return quantized


def show_plan(shown: Display, quantized: QuantizedModel) -> None:
    """How much is quantised, and what is not."""
    plan = quantized.plan
    shown.say(f"{len(plan.operands)} operands quantised, calibrated on {plan.num_images} images")
    kept = Counter(text.partition(": ")[2] for text in plan.skipped)
    for text in (
        *plan.notes,
        *(f"{count} operation{'s' if count > 1 else ''} {reason}" for reason, count in kept.items()),
    ):
        shown.say(f"  {text}")
