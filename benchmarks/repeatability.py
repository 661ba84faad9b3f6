"""Is the ratio of two latencies the same tomorrow? The same two files are measured again and again on a busy machine.

    python benchmarks/repeatability.py [A.onnx B.onnx] [--repeats 10] [--load 1] [--threads 1]

Every repeat is a process of its own that benches both files side by side (ONNX Runtime, shuffled rounds). Printed are
the ratios of the 10th percentiles of their processor times (what ``cpu_ratio`` is), of the medians, and of the medians
of wall time, and how far the ratios of the repeats lie apart: (largest - smallest) / median. Beside it stands what a
bench without interleaving would have said: the ratio of one file's processor time to the other's in the repeat before.
``--load`` processes compute without end meanwhile. Without files, two models with random weights are exported: latency
does not depend on what they have learnt.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

MODELS = ("edgevit_xxs", "vit_tiny_patch16")


def export(folder: Path) -> list[Path]:
    import torch

    from vitrail import create_model
    from vitrail.export import export_model

    torch.manual_seed(0)
    images = torch.randn(2, 3, 224, 224)
    files = [folder / f"{name}.onnx" for name in MODELS]
    for name, file in zip(MODELS, files, strict=True):
        model = create_model(name, image_size=224).eval()
        classes = [str(index) for index in range(model.num_classes)]
        preprocessing = replace(model.preprocessing, image_size=(224, 224))
        export_model(model, file, preprocessing=preprocessing, classes=classes, images=images)
    return files


def measure(files: Sequence[Path], threads: int, seed: int) -> None:
    """One repeat, in a process of its own; prints one line of JSON."""
    from vitrail.bench import BenchConfig, Candidate, bench

    candidates = [Candidate(runtime="onnxruntime", variant=str(index), source=file) for index, file in enumerate(files)]
    config = BenchConfig(threads=(threads,), memory=False, seed=seed, budget_seconds=60)
    rows = bench(candidates, config, (3, 224, 224))
    fields = ("latency_ms_median", "cpu_ms_median", "cpu_ms_p10", "contended", "num_runs")
    print(json.dumps([{field: getattr(row, field) for field in fields} for row in rows]))


def spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def repeat(files: Sequence[Path], arguments: argparse.Namespace) -> list[list[dict[str, float]]]:
    burn = [sys.executable, "-c", "while True: sum(range(100000))"]
    busy = [subprocess.Popen(burn) for _ in range(arguments.load)]
    repeats = []
    try:
        print("repeat  cpu A ms  cpu B ms  cpu ratio  wall ratio  load")
        for number in range(arguments.repeats):
            options = ["--measure", "--threads", str(arguments.threads), "--seed", str(number)]
            command = [sys.executable, __file__, *map(str, files), *options]
            first, second = json.loads(subprocess.run(command, capture_output=True, check=True).stdout.splitlines()[-1])
            repeats.append([first, second])
            cpu, wall = (second[key] / first[key] for key in ("cpu_ms_p10", "latency_ms_median"))
            times = f"{first['cpu_ms_p10']:8.2f}  {second['cpu_ms_p10']:8.2f}"
            print(f"{number + 1:6}  {times}  {cpu:9.4f}  {wall:10.4f}  {os.getloadavg()[0]:4.1f}", flush=True)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return repeats


def report(repeats: Sequence[Sequence[dict[str, float]]]) -> bool:
    cpu, median, wall = (
        [second[key] / first[key] for first, second in repeats]
        for key in ("cpu_ms_p10", "cpu_ms_median", "latency_ms_median")
    )
    apart = [b[1]["cpu_ms_p10"] / a[0]["cpu_ms_p10"] for a, b in itertools.pairwise(repeats)]
    print(f"spread of the processor-time ratio, interleaved: {100 * spread(cpu):.2f} %")
    print(f"spread of the ratio of its medians, interleaved: {100 * spread(median):.2f} %")
    print(f"spread of the wall-time ratio, interleaved:      {100 * spread(wall):.2f} %")
    print(f"spread of the processor-time ratio, one repeat against the next: {100 * spread(apart):.2f} %")
    return spread(cpu) < 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--load", type=int, default=1, help="processes that compute without end meanwhile")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", action="store_true", help="one repeat, for the script itself")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if len(arguments.files) not in (0, 2):
        parser.error("give two ONNX files, or none")
    if arguments.measure:
        measure(arguments.files, arguments.threads, arguments.seed)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files or export(Path(folder))
        return 0 if report(repeat(files, arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
