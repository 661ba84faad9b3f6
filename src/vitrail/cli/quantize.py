"""``vitrail quantize``: integers instead of floats, after training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitrail.cli.display import Display, Output, OutputOptions, display, figure, number, percent
from vitrail.cli.options import configured
from vitrail.quantization import QuantizedModel
from vitrail.runs.load import task_of
from vitrail.runs.quantize import CalibrationConfig, compare_with_float, quantize_run, whole_quantization
from vitrail.runs.run import Run
from vitrail.runs.telling import telling_scores

QUANTIZE_NAMES = {"num_images": "calibration", "quantization.weight_bits": "bits"}

WEIGHTS_AND_ACTIVATIONS = ((True, "weights"), (False, "activations"))


@configured(
    CalibrationConfig(),
    names=QUANTIZE_NAMES,
    groups={
        "Options": (
            "quantization.preset",
            "quantization.weight_bits",
            "quantization.activation_bits",
            "quantization.average_bits",
            "quantization.max_size_mb",
            "max_latency_ms",
            "num_images",
            "quantization.keep_float",
        ),
        "More options: budgets": (
            "quantization.mixed_activations",
            "quantization.allocation",
            "runtime",
            "threads",
        ),
        "More options: methods": ("quantization", "calibration_seed"),
    },
)
def quantize(config: CalibrationConfig, run: Path, /, *, output: OutputOptions = Output()) -> None:
    """Turn a run's model into integers of 8 bits or fewer, after training.

    A few dozen training images, without their labels, go through the model. Scales, smoothing and rounding are chosen
    to change the model's output as little as possible. The plan is written to `quantization.json` of the run, and
    `vitrail export` builds the file from it. Pictures of the noise of every layer are written to `figures/`. At the
    end the scores of the float and the quantised model are compared on up to 256 held-out images.

    Weights may have 2 to 8 bits, or a budget decides for each layer. ONNX Runtime and OpenVINO execute activations of
    8 bits; fewer bits are only simulated, and cannot be exported.

    **Examples**

    ```sh
    vitrail quantize runs/photos
    vitrail quantize runs/photos --bits 4 --calibration 128
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
        opened = Run.open(run)
        with whole_quantization(config):
            with shown.stage("Calibration"):
                quantized = quantize_run(opened, config, progress=shown.progress)
            show_plan(shown, quantized)
            held_out = compare_with_float(opened, quantized, progress=shown.progress)
        scores = [asdict(score) for score in task_of(opened).scores]
        _show_effect(shown, held_out, telling_scores(scores, len(opened.read().classes)))
        shown.result(quantized.plan.to_dict() | {"held_out": held_out})


def _show_effect(shown: Display, held_out: dict[str, dict[str, Any]], scores: Sequence[Mapping[str, Any]]) -> None:
    """Before and after."""
    rows = [
        [
            name,
            *(figure(report[score["name"]], percentage=score["percent"]) for score in scores),
            number(report["loss"], 4),
            percent(report["agreement"]),
        ]
        for name, report in held_out.items()
    ]
    count = held_out["float"]["num_images"]
    shown.table(
        f"{count} held-out images, codes simulated",
        ["model", *(score["title"] for score in scores), "loss", "agrees with float"],
        rows,
    )


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
