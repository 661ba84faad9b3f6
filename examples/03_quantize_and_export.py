"""From a trained run to two verified ONNX files, one of them with 8-bit integers.

python examples/02_train.py && python examples/03_quantize_and_export.py
"""

from __future__ import annotations

from pathlib import Path

from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, calibration_images, load_data
from vitrail.export import export_model
from vitrail.quantization import quantize
from vitrail.tasks import load_task


def main() -> None:
    run = Run.open(Path("runs/example"))
    task, data = load_task(run), load_data(DataConfig())
    preprocessing = Preprocessing.from_dict(run.read()["preprocessing"])

    quantized = quantize(task, calibration_images(data.train, preprocessing, 64, seed=0))
    quantized.plan.save(run.quantization)

    unseen = calibration_images(data.held_out, preprocessing, 32, seed=0)
    for variant, model in (("float", None), ("int8", quantized)):
        record = export_model(
            task,
            run.onnx(variant),
            preprocessing=preprocessing,
            classes=data.classes,
            images=unseen,
            variant=variant,
            quantized=model,
        )
        print(f"{record.path}: {record.size_bytes / 1e6:.2f} MB, same top-1 as the model {record.top1_agreement:.0%}")


if __name__ == "__main__":
    main()
