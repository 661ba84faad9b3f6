"""Candidates, the comparison of several of them, and the comparison of everything that a run has."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.bench.environment import environment
from vitrail.bench.memory import measure_memory
from vitrail.bench.protocol import BenchConfig, Clock, Timings, is_contended, measure, percentile, reason_of
from vitrail.bench.results import BenchResult, append_results
from vitrail.bench.session import Images, Session, import_runtime, open_session
from vitrail.core.errors import UnknownNameError
from vitrail.core.run import Run

BASELINE = "torch float"
"""The candidate that others are compared with, where it takes part; else the first one."""

ONNX_RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something to measure.

    Attributes:
        runtime: a name in :data:`~vitrail.bench.session.RUNTIMES`.
        variant: "float", "int8", ...
        source: what :func:`~vitrail.bench.session.open_session` takes; memory is measured only for paths.
        file: the file that a user would ship, for its name and size; None if there is none.
    """

    runtime: str
    variant: str
    source: Any
    file: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.variant}"


def bench(
    candidates: Sequence[Candidate],
    config: BenchConfig,
    image_shape: tuple[int, int, int],
    *,
    progress: bool = False,
    clock: Clock | None = None,
) -> list[BenchResult]:
    """Measure candidates side by side, on random images of ``image_shape`` (c, h, w).

    Returns:
        one result a candidate, in the order given; one that fails has its ``failure`` set, and the others go on.

    Raises:
        UnknownNameError: a runtime that does not exist, or two candidates of the same name.
    """
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise UnknownNameError(f"candidates {', '.join(names)} do not have names of their own; give variants names")
    shape = (config.batch_size, *image_shape)
    images = np.random.default_rng(config.seed).standard_normal(shape, dtype=np.float32)
    place = environment()
    results, sessions = {}, {}
    with _progress(progress, 2 * len(candidates) + 1) as tell:
        for candidate in candidates:
            tell(f"loading {candidate.name}", 0.0)
            results[candidate.name], session = _open(candidate, config, images, place)
            if session is not None:
                sessions[candidate.name] = session
            tell(f"loading {candidate.name}", 1.0)
        calls = {name: (lambda session=session: session(images)) for name, session in sessions.items()}
        timings = measure(calls, config, clock=clock, on_round=lambda: tell("timing", 1 / config.min_runs))
        results |= {name: _with_timings(results[name], timing) for name, timing in timings.items()}
        for candidate in candidates:
            tell(f"memory of {candidate.name}", 0.0)
            if config.memory:
                results[candidate.name] = _with_memory(results[candidate.name], candidate, shape)
            tell(f"memory of {candidate.name}", 1.0)
    return _with_ratios([results[name] for name in names])


def bench_run(
    run: Run, config: BenchConfig | None = None, *, progress: bool = False, clock: Clock | None = None
) -> list[BenchResult]:
    """Measure every file of a run in every runtime that takes it, and add the rows to ``run.bench``.

    PyTorch eager and compiled take the run itself; ONNX Runtime and OpenVINO take every ``model*.onnx``. The float and
    the int8 file are always candidates: where one is missing, its rows say how to make it.

    Raises:
        RunError: the run is not complete.
    """
    config = config or BenchConfig()
    height, width = run.read()["preprocessing"]["image_size"]
    results = bench(run_candidates(run, config), config, (3, height, width), progress=progress, clock=clock)
    append_results(run.bench, results)
    return results


def run_candidates(run: Run, config: BenchConfig) -> list[Candidate]:
    """The candidates of a run: runtimes of ``config`` times the files that each of them takes."""
    candidates = []
    for runtime in config.runtimes:
        if runtime in ONNX_RUNTIMES:
            candidates += [
                Candidate(runtime=runtime, variant=variant, source=run.onnx(variant), file=run.onnx(variant))
                for variant in onnx_variants(run)
            ]
        else:
            candidates.append(Candidate(runtime=runtime, variant="float", source=run.folder, file=run.weights))
    return candidates


def onnx_variants(run: Run) -> list[str]:
    """Float and int8 (``"float"``, ``"int8"``), and any other variant that the run has a file of."""
    others = sorted(path.name.removeprefix("model.").removesuffix(".onnx") for path in run.folder.glob("model.*.onnx"))
    return ["float", "int8", *(name for name in others if name != "int8")]


def _open(
    candidate: Candidate, config: BenchConfig, images: Images, place: dict[str, Any]
) -> tuple[BenchResult, Session | None]:
    file = candidate.file
    result = BenchResult(
        name=candidate.name,
        runtime=candidate.runtime,
        variant=candidate.variant,
        file=file.name if file else "",
        size_bytes=_size(file) if file and file.exists() else None,
        threads=config.threads,
        batch_size=config.batch_size,
        image_size=(images.shape[-2], images.shape[-1]),
        environment=place,
    )
    try:
        import_runtime(candidate.runtime)
        before = time.perf_counter()
        session = open_session(candidate.source, candidate.runtime, config.threads)
        session(images)
        load_ms = (time.perf_counter() - before) * 1e3
    except UnknownNameError:
        raise
    except Exception as error:  # noqa: BLE001 (a candidate that fails is a row, whatever its runtime raised)
        return replace(result, failure=reason_of(error)), None
    return replace(result, load_ms=load_ms, runtime_version=session.version, options=dict(session.options)), session


def _size(file: Path) -> int:
    """Bytes of a file, with the weights that ONNX keeps beside it where it does."""
    beside = file.with_name(file.name + ".data")
    return file.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def _with_timings(result: BenchResult, timing: Timings) -> BenchResult:
    if timing.failure or not timing.wall:
        return replace(result, failure=timing.failure or "no timed runs; raise budget_seconds")
    wall, cpu = statistics.median(timing.wall), statistics.median(timing.cpu)
    return replace(
        result,
        num_runs=len(timing.wall),
        latency_ms_median=wall * 1e3,
        latency_ms_p90=percentile(timing.wall, 0.9) * 1e3,
        latency_ms_p99=percentile(timing.wall, 0.99) * 1e3,
        latency_ms_min=min(timing.wall) * 1e3,
        cpu_ms_median=cpu * 1e3,
        contended=is_contended(wall, cpu, result.threads),
    )


def _with_memory(result: BenchResult, candidate: Candidate, shape: tuple[int, ...]) -> BenchResult:
    if result.failure or not isinstance(candidate.source, str | Path):
        return result
    try:
        peak = measure_memory(Path(candidate.source), candidate.runtime, result.threads, shape)
    except Exception as error:  # noqa: BLE001 (the latency stands; the row says what is missing)
        return replace(result, failure=reason_of(error))
    return replace(result, peak_memory_mb=peak)


def _with_ratios(results: list[BenchResult]) -> list[BenchResult]:
    timed = [result for result in results if result.latency_ms_median]
    base = next((r for r in timed if r.name == BASELINE), timed[0] if timed else None)
    if base is None:
        return results
    return [
        replace(
            result,
            latency_ratio=_ratio(result.latency_ms_median, base.latency_ms_median),
            cpu_ratio=_ratio(result.cpu_ms_median, base.cpu_ms_median),
        )
        for result in results
    ]


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value and base else None


@contextmanager
def _progress(show: bool, steps: int) -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error, or nothing; told what goes on and how many steps it was."""
    if not show:
        yield lambda _text, _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("bench"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=steps)
        yield lambda text, done: bar.update(task, description=text, advance=done)
