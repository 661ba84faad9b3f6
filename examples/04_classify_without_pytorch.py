"""What a device needs: an exported file, ONNX Runtime and NumPy. The file says how its images are prepared.

python examples/03_quantize_and_export.py && python examples/04_classify_without_pytorch.py [image]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def main() -> None:
    session = onnxruntime.InferenceSession("runs/example/model.int8.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    classes, how = (json.loads(metadata[f"vitrail.{name}"]) for name in ("classes", "preprocessing"))

    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    image = Image.open(path).convert("RGB") if path else Image.new("RGB", (64, 48), "gray")
    logits = session.run(None, {"image": prepare(image, how)})[0][0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = int(probabilities.argmax())
    print(f"{path or 'a grey image'}: {classes[best]} ({probabilities[best]:.0%})")


def prepare(image: Image.Image, how: dict) -> np.ndarray:
    """Resize the shorter side, crop the centre, scale, normalise: (1, 3, h, w) float32."""
    height, width = how["image_size"]
    factor = max(height, width) / how["crop_fraction"] / min(image.size)
    image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    normalised = (pixels - np.float32(how["mean"])) / np.float32(how["std"])
    return normalised.transpose(2, 0, 1)[None]


if __name__ == "__main__":
    main()
