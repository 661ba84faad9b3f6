"""The comparison of candidates side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.bench.candidates import Candidate
from vitrail.bench.conditions import Conditions, drift_of, pinned, warnings_of, watch
from vitrail.bench.energy import Meter
from vitrail.bench.energy_rows import Calls, Rows, add_energy, open_own_meter
from vitrail.bench.environment import environment
from vitrail.bench.memory import measure_memory
from vitrail.bench.protocol import BenchConfig, Clock, Timings, is_contended, measure, percentile, reason_of
from vitrail.bench.results import BenchResult
from vitrail.bench.right_answers import FLOAT, Answer, ask, wrong_answers
from vitrail.core.errors import BenchError, UnknownNameError
from vitrail.core.files import file_hash
from vitrail.core.progress import Work
from vitrail.runtimes import Images, ModelFolder, Session, import_runtime, open_session
from vitrail.runtimes.processor import saturates

BASELINE = "torch float"
"""The candidate that others are compared with, where it takes part and no other is named; else the first one."""


@dataclass(frozen=True)
class _Entry:
    """A candidate with a number of threads and a batch of images."""

    candidate: Candidate
    threads: int
    images: Images

    @property
    def key(self) -> str:
        return f"{self.candidate.label}, {self.threads} threads, batch {len(self.images)}"


def bench(
    candidates: Sequence[Candidate],
    config: BenchConfig,
    image_shape: tuple[int, int, int] | None = None,
    *,
    progress: bool = False,
    clock: Clock | None = None,
) -> list[BenchResult]:
    """Measure candidates side by side, on random images.

    Args:
        candidates: the models to measure; each with every number of threads and every batch size of ``config``.
        config: settings of the measurement.
        image_shape: shape (c, h, w) of the images, for candidates without one.
        progress: show a bar.
        clock: source of times.

    Returns:
        one result a candidate, number of threads and batch size, in this order; one that fails, or whose answers are
        not those of the same model in another runtime, has its ``failure`` set, and the others go on.

    Raises:
        UnknownNameError: a runtime or a baseline that does not exist, or two candidates of the same name.
        BenchError: there is no such energy meter, or the cores cannot be had.
    """
    labels = [candidate.label for candidate in candidates]
    if len(set(labels)) < len(labels):
        raise UnknownNameError(f"candidates {', '.join(labels)} do not have names of their own; give variants names")
    if config.baseline and config.baseline not in {*labels, *(candidate.name for candidate in candidates)}:
        raise UnknownNameError(f"baseline '{config.baseline}' is no candidate; there are {', '.join(labels)}")
    entries = _entries(candidates, config, image_shape)
    meter = open_own_meter(config.energy) if config.energy else None
    try:
        with pinned(config.cores), _progress(progress, 2 * len(entries) + 1 + (meter is not None)) as tell:
            rows = _measure_all(entries, config, meter, clock, tell)
    finally:
        if meter is not None:
            meter.close()
    return _with_ratios([(entry.candidate, rows[entry.key]) for entry in entries], config.baseline)


def _entries(
    candidates: Sequence[Candidate], config: BenchConfig, image_shape: tuple[int, int, int] | None
) -> list[_Entry]:
    random = np.random.default_rng(config.seed)
    images: dict[tuple[int, ...], Images] = {}
    entries = []
    for candidate in candidates:
        shape = candidate.image_shape or image_shape
        if shape is None:
            raise BenchError(f"candidate {candidate.label} has no image_shape; give one to it or to bench()")
        for threads in config.threads:
            for size in config.batch_size:
                batch = (size, *shape)
                if batch not in images:
                    images[batch] = random.standard_normal(batch, dtype=np.float32)
                entries.append(_Entry(candidate, threads, images[batch]))
    return entries


def _measure_all(
    entries: Sequence[_Entry],
    config: BenchConfig,
    meter: Meter | None,
    clock: Clock | None,
    tell: Callable[[str, float], None],
) -> Rows:
    place = environment() | ({"pinned_cores": list(config.cores)} if config.cores else {})
    rows: Rows = {}
    sessions: dict[str, tuple[_Entry, Session]] = {}
    answers: dict[str, Answer] = {}
    for entry in entries:
        tell(f"loading {entry.key}", 0.0)
        rows[entry.key], opened = _open(entry, place, config.seed)
        if opened is not None:
            session, answers[entry.key] = opened
            sessions[entry.key] = entry, session
        tell(f"loading {entry.key}", 1.0)
    for key, failure in wrong_answers(answers).items():
        rows[key] = replace(rows[key], failure=failure)
        del sessions[key]
    calls: Calls = {key: partial(session, entry.images) for key, (entry, session) in sessions.items()}
    watched = watch()
    timings = measure(calls, config, clock=clock, on_round=lambda: tell("timing", 1 / config.min_runs))
    conditions = watched()
    rows |= {key: _with_timings(rows[key], timing, conditions) for key, timing in timings.items()}
    if meter is not None:
        add_energy(rows, calls, meter, config, tell)
    for entry in entries:
        tell(f"memory of {entry.key}", 0.0)
        if config.memory:
            rows[entry.key] = _with_memory(rows[entry.key], entry)
        tell(f"memory of {entry.key}", 1.0)
    return rows


def _open(entry: _Entry, place: dict[str, Any], seed: int) -> tuple[BenchResult, tuple[Session, Answer] | None]:
    candidate = entry.candidate
    file = candidate.file
    result = BenchResult(
        name=candidate.name,
        runtime=candidate.runtime,
        variant=candidate.variant,
        run=candidate.run,
        file=file.name if file else "",
        size_bytes=_size(file) if file and file.exists() else None,
        file_hash=file_hash(file) if file and file.exists() else "",
        threads=entry.threads,
        batch_size=len(entry.images),
        image_size=(entry.images.shape[-2], entry.images.shape[-1]),
        environment=place,
        failure=candidate.failure,
    )
    if candidate.failure:
        return result, None
    try:
        import_runtime(candidate.runtime)
        before = time.perf_counter()
        session = open_session(candidate.source, candidate.runtime, entry.threads, shape=entry.images.shape)
        session(entry.images)
        load_ms = (time.perf_counter() - before) * 1e3
        answer = _answer(entry, session, seed)
    except UnknownNameError:
        raise
    except Exception as error:  # noqa: BLE001 (a candidate that fails is a row, whatever its runtime raised)
        return replace(result, failure=reason_of(error)), None
    result = replace(result, load_ms=load_ms, runtime_version=session.version, options=dict(session.options))
    return result, (session, answer)


def _answer(entry: _Entry, session: Session, seed: int) -> Answer:
    candidate = entry.candidate
    return Answer(
        run=candidate.run,
        variant=candidate.variant,
        runtime=candidate.runtime,
        shape=entry.images.shape,
        outputs=ask(session, entry.images.shape, seed),
        row_parts=candidate.row_parts,
    )


def _size(file: Path) -> int:
    """Bytes of a file, with the weights that ONNX keeps beside it where it does."""
    beside = file.with_name(file.name + ".data")
    return file.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def _with_timings(result: BenchResult, timing: Timings, conditions: Conditions) -> BenchResult:
    if timing.failure or not timing.wall:
        return replace(result, failure=timing.failure or "no timed runs; raise budget_seconds")
    wall, cpu = statistics.median(timing.wall), statistics.median(timing.cpu)
    drift = drift_of(timing.cpu)
    return replace(
        result,
        num_runs=len(timing.wall),
        latency_ms_median=wall * 1e3,
        latency_ms_p90=percentile(timing.wall, 0.9) * 1e3,
        latency_ms_p99=percentile(timing.wall, 0.99) * 1e3,
        latency_ms_min=min(timing.wall) * 1e3,
        cpu_ms_median=cpu * 1e3,
        cpu_ms_p10=percentile(timing.cpu, 0.1) * 1e3,
        contended=is_contended(wall, cpu, result.threads),
        drift=drift,
        warnings=(*warnings_of(conditions, drift, len(timing.wall)), *_processor_warnings(result)),
        environment=result.environment | {"conditions": conditions.to_dict()},
    )


def _processor_warnings(result: BenchResult) -> tuple[str, ...]:
    """What this processor makes of integers, where that is not what others make of them."""
    integers = result.variant != FLOAT and result.runtime == "onnxruntime"
    if not (integers and saturates(result.environment.get("cpu_features", []))):
        return ()
    warning = (
        "this processor has no VNNI, and ONNX Runtime's sums of 8-bit products may saturate on it: compare the "
        "accuracy with vitrail evaluate, or quantise with --target-cpu avx2"
    )
    return (warning,)


def _with_memory(result: BenchResult, entry: _Entry) -> BenchResult:
    source = entry.candidate.source
    if result.failure or not isinstance(source, str | Path | ModelFolder):
        return result
    try:
        memory = measure_memory(source, entry.candidate.runtime, entry.threads, entry.images.shape)
    except Exception as error:  # noqa: BLE001 (the latency stands; the row says what is missing)
        return replace(result, failure=reason_of(error))
    return replace(result, peak_memory_mb=memory.peak_mb, file_memory_mb=memory.file_mb)


def _with_ratios(rows: Sequence[tuple[Candidate, BenchResult]], named: str) -> list[BenchResult]:
    """Ratios to the baseline, which is looked for among the rows with the same threads and batch size."""
    results = []
    for _, result in rows:
        timed = [
            (candidate.label, row)
            for candidate, row in rows
            if row.latency_ms_median and (row.threads, row.batch_size) == (result.threads, result.batch_size)
        ]
        wanted = [(label, row) for label, row in timed if (named or BASELINE) in (label, row.name)]
        label, base = next(iter(wanted or ([] if named else timed)), ("", None))
        if base is None:
            results.append(result)
            continue
        results.append(
            replace(
                result,
                baseline=label,
                latency_ratio=_ratio(result.latency_ms_median, base.latency_ms_median),
                cpu_ratio=_ratio(result.cpu_ms_p10, base.cpu_ms_p10),
            )
        )
    return results


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value and base else None


@contextmanager
def _progress(show: bool, steps: int) -> Iterator[Callable[[str, float], None]]:
    """What is given the present step, and how far it went; people see it."""
    work = Work("Bench", steps, progress=show)
    try:
        yield lambda text, done: work.advance(done, text)
    finally:
        work.end()
