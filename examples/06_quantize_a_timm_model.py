"""Quantisation and export work on the graph of any model, here one of timm (pip install 'vitrail[timm]').

python examples/06_quantize_a_timm_model.py
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch

from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, calibration_images, load_data
from vitrail.export import export_model
from vitrail.quantization import quantize


def main() -> None:
    torch.manual_seed(0)
    # pretrained=True would download weights; what is shown here does not depend on them.
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=48, depth=4).eval()
    preprocessing = Preprocessing(image_size=(48, 48), mean=(0.5,) * 3, std=(0.5,) * 3)
    data = load_data(DataConfig())

    quantized = quantize(model, calibration_images(data.train, preprocessing, 64, seed=0))
    record = export_model(
        model,
        Path("runs/timm/model.int8.onnx"),
        preprocessing=preprocessing,
        classes=data.classes,
        images=calibration_images(data.held_out, preprocessing, 32, seed=0),
        variant="int8",
        quantized=quantized,
    )
    print(f"{record.path}: {record.size_bytes / 1e6:.2f} MB, relative error {record.max_relative_error:.4f}")


if __name__ == "__main__":
    main()
