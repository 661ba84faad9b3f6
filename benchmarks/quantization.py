"""What our quantisation makes of the benchmark's models, method by method: one JSON line a result.

    python benchmarks/quantization_subjects.py --data DATA --runs runs/quantization
    python benchmarks/quantization.py --data DATA --runs runs/quantization --rows ours.jsonl
    python benchmarks/quantization_table.py ours.jsonl peers.jsonl

Plans that runtimes execute are exported and run by ONNX Runtime; the others are simulated, and say so. The methods
called "as ..." are our own implementations from the papers' descriptions. Rows that are in the file already are not
measured again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_methods import onnxruntime_predict
from quantization_subjects import SUBJECTS, Subject, load_subject
from torch import Tensor

from vitrail.core.errors import ExportError
from vitrail.export import export_model
from vitrail.quantization import QuantizationConfig, QuantizedModel, quantize

PLAIN = {"preset": "mptq", "smoothing": "none", "softmax": "uniform", "activation": "uniform"}
METHODS: dict[str, dict[str, Any]] = {
    "min-max": {"preset": "min_max"},
    "error-chosen scales": PLAIN | {"observer": "mse"},
    "as SmoothQuant": PLAIN | {"observer": "mse", "smoothing": "smoothquant"},
    "as PTQ4ViT": PLAIN | {"softmax": "two_scale", "activation": "twin", "search_ratio": False},
    "as FQ-ViT": PLAIN | {"observer": "min_max", "softmax": "log2"},
    "as RepQ-ViT": PLAIN | {"observer": "percentile", "smoothing": "repq", "softmax": "log_sqrt2"},
    "as ERQ": PLAIN | {"observer": "mse", "softmax": "log_sqrt2", "rounding": "gptq", "correction": "ridge"},
    "as TSPTQ-ViT": PLAIN
    | {"softmax": "two_scale", "activation": "two_scale", "search_ratio": False, "channels": "outlier"},
    "SQ-b": PLAIN | {"smoothing": "sq_b"},
    "SQ-b, OPT-m (mptq)": {"preset": "mptq"},
    "fast": {"preset": "fast"},
    "best without blocks": {"preset": "best", "reconstruction": "none"},
    "best": {"preset": "best"},
}
BITS: dict[str, dict[str, Any]] = {
    "W8A8": {},
    "W6A6": {"weight_bits": 6, "activation_bits": 6},
    "W5A5": {"weight_bits": 5, "activation_bits": 5},
    "W4A8": {"weight_bits": 4},
    "W4A4": {"weight_bits": 4, "activation_bits": 4},
    "mixed 6": {"average_bits": 6, "mixed_activations": True},
    "mixed 5": {"average_bits": 5, "mixed_activations": True},
    "mixed 4": {"average_bits": 4, "mixed_activations": True},
    "mixed W5A8": {"average_bits": 5},
    "mixed W4A8": {"average_bits": 4},
}


def evaluate(
    subject: Subject, quantized: QuantizedModel, images: Tensor, folder: Path
) -> tuple[np.ndarray, int | None]:
    """Logits of the test images, and the size of the file if a runtime executes the plan."""

    def simulate(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return quantized(torch.from_numpy(batch)).numpy()

    if quantized.plan.simulated:
        return subject.logits(simulate), None
    path = folder / "model.int8.onnx"
    about: dict[str, Any] = {"preprocessing": subject.preprocessing, "classes": subject.classes, "images": images[:16]}
    # what the codes do to the output is what is measured here, so a larger difference is no reason to stop
    record = export_model(subject.model, path, quantized=quantized, variant="int8", tolerance=1.0, **about)
    return subject.logits(onnxruntime_predict(path)), record.size_bytes


def measure(
    subject: Subject, method: str, bits: str, seed: int, images: Tensor, folder: Path, reference: np.ndarray
) -> dict[str, Any]:
    """One row of the results."""
    start = time.process_time()
    quantized = quantize(subject.model, images, config=QuantizationConfig(**(METHODS[method] | BITS[bits])))
    seconds = time.process_time() - start
    logits, size = evaluate(subject, quantized, images, folder)
    decisions = logits.argmax(1)
    return {
        "model": subject.name,
        "method": method,
        "bits": bits,
        "seed": seed,
        "top1": float((decisions == subject.labels.numpy()).mean()),
        "n": len(logits),
        "agreement": float((decisions == reference.argmax(1)).mean()),
        "sqnr_db": float(10 * np.log10(np.square(reference).sum() / np.square(logits - reference).sum().clip(1e-30))),
        "executed": size is not None,
        "integer": size is not None,
        "size_bytes": size,
        "seconds": round(seconds, 1),
        "num_calibration": len(images),
        "average_weight_bits": quantized.plan.average_bits(weights=True),
        "average_activation_bits": quantized.plan.average_bits(weights=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="what quantization_subjects.py trained")
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines, one a result; appended to")
    parser.add_argument("--files", type=Path, default=Path("runs/quantization_ours"), help="where models are written")
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--bits", nargs="+", choices=list(BITS), default=list(BITS))
    parser.add_argument("--seeds", type=int, default=3, help="draws of calibration images")
    parser.add_argument("--calibration", type=int, default=64, help="calibration images a draw")
    parser.add_argument("--test", type=int, help="test images, the first ones; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    options.files.mkdir(parents=True, exist_ok=True)
    lines = options.rows.read_text(encoding="utf-8").splitlines() if options.rows.exists() else []
    known = {tuple(json.loads(line)[key] for key in ("model", "method", "bits", "seed")) for line in lines}
    for name in options.models:
        subject = load_subject(name, options.data, options.runs)
        subject = replace(subject, test=subject.test[: options.test], labels=subject.labels[: options.test])
        with torch.inference_mode():
            reference = subject.logits(lambda batch: subject.model(torch.from_numpy(batch)).numpy())  # noqa: B023
        for seed in range(options.seeds):
            images = subject.calibration(options.calibration, seed)
            for bits in options.bits:
                for method in options.methods:
                    if (name, method, bits, seed) in known:
                        continue
                    try:
                        row = measure(subject, method, bits, seed, images, options.files, reference)
                    except ExportError as error:  # a file that does not agree is a result, too
                        row = {"model": name, "method": method, "bits": bits, "seed": seed, "error": str(error)[:300]}
                    with options.rows.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
