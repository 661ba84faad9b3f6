"""``vitrail bench``: how fast, and how much memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from vitrail.bench import BenchConfig, BenchResult
from vitrail.cli.display import Display, Output, OutputOptions, display, megabytes, number, number_text
from vitrail.cli.options import configured
from vitrail.cli.pareto import show_pareto
from vitrail.core.errors import ConfigError
from vitrail.report.references import read_references
from vitrail.runs.bench import attach_energy, bench_runs
from vitrail.runs.run import Run
from vitrail.serve.browser import BrowserConfig, bench_in_browsers

BrowserOptions = Annotated[
    BrowserConfig,
    Parameter(
        name="*",
        group=Group("More options: --device browser", sort_key=40),
        negative_iterable=(),
        consume_multiple=True,
    ),
]


@configured(
    BenchConfig(),
    groups={
        "Options": ("runtimes", "threads", "batch_size", "baseline", "energy"),
        "More options: measurement": ("memory", "cores", "seed", "energy_rounds", "energy_seconds"),
        "More options: duration": ("min_runs", "min_seconds", "budget_seconds", "warmup_runs", "warmup_seconds"),
    },
)
def bench(
    config: BenchConfig,
    run: Path,
    /,
    *more: Path,
    attach: bool = False,
    device: Literal["this", "browser"] = "this",
    plot: Path | None = None,
    references: Path | None = None,
    browser: BrowserOptions = BrowserConfig(),
    output: OutputOptions = Output(),
) -> None:
    """Measure latency, memory and energy of a run's files in every runtime.

    Every file of the run (PyTorch weights, float and 8-bit files) is loaded into every runtime that takes it. All are
    timed side by side in shuffled rounds, so that other programs disturb all of them alike; several runs take turns
    too. The rows are added to `bench.jsonl` of each run, and `vitrail report` shows them.

    With `--device browser` a page is served instead. Phones and laptops that open it measure the ONNX files.

    **Examples**

    ```sh
    vitrail bench runs/photos
    vitrail bench runs/photos runs/other --threads 1 4 --baseline "onnxruntime float"
    vitrail bench runs/photos --threads 4 --batch-size 8
    vitrail bench runs/photos --energy rapl
    vitrail bench runs/photos --energy csv:trace.csv --attach
    vitrail bench runs/photos --runtimes onnxruntime openvino --no-memory
    vitrail bench runs/photos runs/other --plot pareto --references published.csv
    vitrail bench runs/photos --device browser --host 0.0.0.0
    ```

    Args:
        run: Run folder.
        more: More run folders.
        attach: Measure nothing; add the energy of an external meter's trace to the newest measurement.
        device: Place of the measurement: this machine, or the browsers of devices that open a page.
        plot: Folder for pictures of accuracy over latency, energy and size, as `vitrail pareto` writes them. Run
            `vitrail evaluate` before. Default: no pictures.
        references: CSV or YAML of published values for the pictures, as for `vitrail pareto`. Default: none.
        browser: How the page is served.
    """
    with display(output) as shown:
        folders = (run, *more)
        if references and not plot:
            raise ConfigError("--references is for the plots; add --plot FOLDER")
        published = read_references(references) if references else []
        needs = ("description", "weights", *(("evaluation",) if plot else ()))
        runs = [Run.open(folder, needs=needs) for folder in folders]
        if device == "browser":
            results = bench_in_browsers(runs, browser, config, tell=shown.tell)
        elif attach:
            results = attach_energy(runs, config.energy)
        else:
            results = bench_runs(runs, config, progress=shown.progress)
        show_bench(shown, results)
        if plot:
            show_pareto(shown, folders, plot, device=None, published=published)
        shown.result([result.to_dict() for result in results])


def show_bench(shown: Display, results: Sequence[BenchResult]) -> None:
    """The table of a measurement, why rows have none, and what disturbed it."""
    names = row_names(results)
    columns = {
        "median": [number(r.latency_ms_median, 2, " ms") for r in results],
        "p90": [number(r.latency_ms_p90, 2, " ms") for r in results],
        "p99": [number(r.latency_ms_p99, 2, " ms") for r in results],
        "processor": [number(r.cpu_ms_median, 2, " ms") for r in results],
        "ratio": [number(r.latency_ratio, 2) for r in results],
    }
    if any(r.batch_size > 1 for r in results):
        columns["images/s"] = [number(r.images_per_second, 1) for r in results]
    if any(r.energy for r in results):
        columns["energy an image"] = [number_text(r.energy.text()) if r.energy else None for r in results]
    columns["load"] = [number(r.load_ms, 0, " ms") for r in results]
    columns["memory"] = [number(r.peak_memory_mb, 0, " MB") for r in results]
    columns["of the file"] = [number(r.file_memory_mb, 0, " MB") for r in results]
    columns["size"] = [megabytes(r.size_bytes) for r in results]
    shown.table(
        "Latency, memory and energy" if "energy an image" in columns else "Latency and memory",
        ("candidate", *columns),
        list(zip(names, *columns.values(), strict=True)),
    )
    if hidden := [n for n, r in zip(names, results, strict=True) if r.file_memory_mb and r.peak_memory_mb is None]:
        shown.say(
            f"{', '.join(hidden)}: the Python binding imports PyTorch, which no device needs; only the file's part of "
            f"the memory is shown"
        )
    for name, result in zip(names, results, strict=True):
        for reason in (result.failure, result.energy and result.energy.failure):
            if reason:
                shown.say(f"{name}: {reason}")
    if any(result.energy and result.energy.estimated for result in results):
        shown.say("Energy is an estimate: processor time multiplied by the power that you stated; nothing measured it.")
    for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
        shown.say(f"Warning: {warning}.")
    if any(result.contended for result in results):
        shown.say("Other programs disturbed the measurement; compare processor time, or repeat it on a quiet machine.")


def row_names(results: Sequence[BenchResult]) -> list[str]:
    """Names of rows, with run and device, and threads and batch size as far as they differ."""
    several_threads = len({result.threads for result in results}) > 1
    several_batches = len({result.batch_size for result in results}) > 1
    return [
        (f"{result.run}/" if result.run else "")
        + result.name
        + (f", threads {result.threads}" if several_threads else "")
        + (f", batch {result.batch_size}" if several_batches else "")
        + (f", {result.device}" if result.device else "")
        for result in results
    ]
