"""``vitrail quantize``: integers instead of floats, after training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vitrail.bench.quantized_run import CalibrationConfig, quantize_run
from vitrail.cli.display import Display, Output, OutputOptions, display
from vitrail.cli.options import configured
from vitrail.core.run import Run
from vitrail.quantization import QuantizedModel

WEIGHTS_AND_ACTIVATIONS = ((True, "weights"), (False, "activations"))


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
