"""What a device needs: an exported file of any task, ONNX Runtime, NumPy, Pillow, and the folder vitrail/device.

python examples/03_quantize_and_export.py && python examples/04_predict_without_pytorch.py [file] [image ...]

The file says how images are prepared and how its output is decoded, and the answers are those of `vitrail predict`.
PyTorch is not imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from vitrail.device.answer import answer, make_picture, read_facts
from vitrail.device.pixels import read_image


def main() -> None:
    file, *images = sys.argv[1:] or ["runs/example/model.int8.onnx"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    facts = read_facts(session.get_modelmeta().custom_metadata_map)

    def run(batch: np.ndarray) -> np.ndarray | list[np.ndarray]:
        outputs = session.run(None, {session.get_inputs()[0].name: batch})
        return outputs if len(outputs) > 1 else outputs[0]  # with --outlier-score, a classifier has two

    if facts["task"]["name"] == "generation":
        noise = np.random.default_rng(0).standard_normal(facts["task"]["latent_dim"])
        Image.fromarray(make_picture(run, facts, noise)).save("made.png")
        print("made.png")
        return
    for path in map(Path, images or ["a grey image"]):
        source = path if images else Image.new("RGB", (64, 48), "gray")
        found = answer(run, read_image(source, facts["preprocessing"]), facts)
        found.pop("labels", None)  # the class of every pixel of a segmentation, (h, w)
        print(json.dumps({"image": str(path)} | found))


if __name__ == "__main__":
    main()
