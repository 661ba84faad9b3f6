"""``vitrail bench``: how fast, and how much memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from vitrail.bench import BenchConfig, BenchResult, bench_run
from vitrail.cli.display import Display, Output, OutputOptions, display, megabytes, number
from vitrail.cli.options import configured
from vitrail.core.run import Run
from vitrail.serve.browser import BrowserConfig, bench_in_browsers

BrowserOptions = Annotated[
    BrowserConfig,
    Parameter(name="*", group=Group("With --device browser", sort_key=40), negative_iterable=(), consume_multiple=True),
]


@configured(
    BenchConfig(),
    groups={
        "Measurement": ("runtimes", "threads", "batch_size", "memory", "seed"),
        "Duration": ("min_runs", "min_seconds", "budget_seconds", "warmup_runs", "warmup_seconds"),
    },
)
def bench(
    config: BenchConfig,
    run: Path,
    /,
    *more: Path,
    device: Literal["this", "browser"] = "this",
    browser: BrowserOptions = BrowserConfig(),
    output: OutputOptions = Output(),
) -> None:
    """Measure latency and memory of a run's files in every runtime.

    Everything that the run has (PyTorch weights, float and 8-bit ONNX files) is loaded into every runtime that takes
    it, and timed side by side in shuffled rounds, so that a busy moment of the machine hits all of them alike. The
    rows are added to `bench.jsonl` of the run; `vitrail report` shows them.

    With `--device browser` a page is served instead, on which phones and laptops measure the ONNX files themselves.

    **Examples**

    ```sh
    vitrail bench runs/photos
    vitrail bench runs/photos --threads 4 --batch-size 8
    vitrail bench runs/photos --runtimes onnxruntime openvino --no-memory
    vitrail bench runs/photos --device browser --host 0.0.0.0
    ```

    Args:
        run: Run folder.
        more: More run folders.
        device: Where to measure: on this machine, or in the browsers of devices that open a page.
        browser: How the page is served.
    """
    with display(output) as shown:
        runs = [Run.open(folder) for folder in (run, *more)]
        if device == "browser":
            results = bench_in_browsers(runs, browser, config, tell=shown.tell)
        else:
            results = [result for one in runs for result in bench_run(one, config, progress=shown.progress)]
        show_bench(shown, results)
        shown.result([result.to_dict() for result in results])


def show_bench(shown: Display, results: Sequence[BenchResult]) -> None:
    """The table of a measurement, and why rows have none."""
    shown.table(
        "Latency and memory",
        ("runtime", "median", "90th percentile", "ratio", "load", "memory", "size"),
        [
            (
                f"{result.name}, {result.device}" if result.device else result.name,
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
