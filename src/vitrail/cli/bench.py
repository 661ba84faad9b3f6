"""``vitrail bench``: how fast, and how much memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitrail.bench import BenchConfig, BenchResult, bench_run
from vitrail.cli.display import Display, Output, OutputOptions, display, megabytes, number
from vitrail.cli.options import configured
from vitrail.core.run import Run


@configured(
    BenchConfig(),
    groups={
        "Measurement": ("runtimes", "threads", "batch_size", "memory", "seed"),
        "Duration": ("min_runs", "min_seconds", "budget_seconds", "warmup_runs", "warmup_seconds"),
    },
)
def bench(config: BenchConfig, run: Path, /, *, output: OutputOptions = Output()) -> None:
    """Measure latency and memory of a run's files in every runtime.

    Everything that the run has (PyTorch weights, float and 8-bit ONNX files) is loaded into every runtime that takes
    it, and timed side by side in shuffled rounds, so that a busy moment of the machine hits all of them alike. The
    rows are added to `bench.jsonl` of the run; `vitrail report` shows them.

    **Examples**

    ```sh
    vitrail bench runs/photos
    vitrail bench runs/photos --threads 4 --batch-size 8
    vitrail bench runs/photos --runtimes onnxruntime openvino --no-memory
    ```

    Args:
        run: Run folder.
    """
    with display(output) as shown:
        results = bench_run(Run.open(run), config, progress=shown.progress)
        show_bench(shown, results)
        shown.result([result.to_dict() for result in results])


def show_bench(shown: Display, results: Sequence[BenchResult]) -> None:
    """The table of a measurement, and why rows have none."""
    shown.table(
        "Latency and memory",
        ("runtime", "median", "90th percentile", "ratio", "load", "memory", "size"),
        [
            (
                result.name,
                number(result.latency_ms_median, 2, " ms"),
                number(result.latency_ms_p90, 2, " ms"),
                number(result.latency_ratio, 2),
                number(result.load_ms, 0, " ms"),
                number(result.peak_memory_mb, 0, " MB"),
                megabytes(result.size_bytes),
            )
            for result in results
        ],
    )
    for result in results:
        if result.failure:
            shown.say(f"{result.name}: {result.failure}")
    if any(result.contended for result in results):
        shown.say("Other programs disturbed the measurement; repeat it on a quiet machine.")
