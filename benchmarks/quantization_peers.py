"""What public tools make of the same models, calibration images and test images: one JSON line a result.

    python benchmarks/quantization_peers.py --data DATA --runs runs/quantization --rows peers.jsonl

Needs ``pip install nncf torchao`` for their methods (a missing package is said and left out). A row with
``executed`` was computed by the runtime that its users deploy; with ``integer``, by its integer kernels. Rows that are
in the file already are not measured again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_methods import METHODS, SEEDLESS, Job, float_model
from quantization_subjects import SUBJECTS, load_subject

from vitrail.core.errors import VitrailError


def measure(name: str, job: Job, seed: int, reference: np.ndarray) -> dict[str, Any]:
    """One row of the results."""
    subject = job.subject
    start = time.perf_counter()
    result = METHODS[name][1](job)
    seconds = time.perf_counter() - start
    logits = subject.logits(result.predict)
    decisions = logits.argmax(1)
    return {
        "model": subject.name,
        "method": name,
        "bits": result.bits,
        "seed": seed,
        "top1": float((decisions == subject.labels.numpy()).mean()),
        "n": len(logits),
        "agreement": float((decisions == reference.argmax(1)).mean()),
        "sqnr_db": float(10 * np.log10(np.square(reference).sum() / np.square(logits - reference).sum().clip(1e-30))),
        "executed": result.executed,
        "integer": result.integer,
        "size_bytes": result.size_bytes,
        "seconds": round(seconds, 1),
        "num_calibration": len(job.images),
    }


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def run_subject(options: argparse.Namespace, name: str) -> None:
    subject = load_subject(name, options.data, options.runs)
    reference: np.ndarray | None = None
    for seed in range(options.seeds):
        folder = options.files / name / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(subject=subject, images=subject.calibration(options.calibration, seed), folder=folder)
        for method in options.methods:
            known = {(row["model"], row["method"], row["seed"]) for row in _read_rows(options.rows)}
            package = METHODS[method][0]
            if (name, method, seed) in known or (seed and method in SEEDLESS):
                continue
            if package is not None and importlib.util.find_spec(package) is None:
                print(f"{method}: left out, {package} is not installed")
                continue
            if reference is None:
                reference = subject.logits(float_model(job).predict)
            try:
                row = measure(method, job, seed, reference)
            except Exception as error:  # a peer that fails on a model is a result, too: it must not stop the others
                if isinstance(error, VitrailError) or options.strict:
                    raise
                row = {"model": name, "method": method, "seed": seed, "error": f"{type(error).__name__}: {error}"[:300]}
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="what quantization_subjects.py trained")
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines, one a result; appended to")
    parser.add_argument("--files", type=Path, default=Path("runs/quantization_peers"), help="where models are written")
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="draws of calibration images")
    parser.add_argument("--calibration", type=int, default=64, help="calibration images a draw")
    parser.add_argument("--strict", action="store_true", help="stop at the first method that fails")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peers' own
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        run_subject(options, name)


if __name__ == "__main__":
    main()
