"""Latency of the exported files, side by side: candidates take turns, so a busy machine slows all of them alike.

python examples/03_quantize_and_export.py && python examples/05_measure.py
"""

from __future__ import annotations

from pathlib import Path

from vitrail.bench import BenchConfig
from vitrail.core.run import Run
from vitrail.runs.bench import bench_run


def main() -> None:
    config = BenchConfig(runtimes=("onnxruntime", "openvino"), min_runs=20, min_seconds=0.5, memory=False)
    for result in bench_run(Run.open(Path("runs/example")), config):
        speed = result.failure or f"{result.latency_ms_median:.2f} ms, 90 % below {result.latency_ms_p90:.2f} ms"
        print(f"{result.name:20} {speed}")


if __name__ == "__main__":
    main()
