"""From stored measurements to rows: for a run's ``bench.jsonl``, and for the plot on every device's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vitrail.bench import BenchResult, pareto_front
from vitrail.bench.conditions import DRIFTED, drift_of
from vitrail.runtimes import RUNTIMES
from vitrail.serve.browser.assets import VERSION
from vitrail.serve.browser.messages import Measurement
from vitrail.serve.browser.offer import Offer
from vitrail.serve.browser.store import Stored


def bench_result(stored: Stored, offer: Offer) -> BenchResult:
    """A measurement as a row among those of other runtimes."""
    measured, device = stored.measurement, stored.description
    failure = _failure(stored, offer)
    drift = drift_of(measured.samples_ms)
    timed: dict[str, Any] = {}
    if failure is None:
        timed = {
            "num_runs": measured.num_runs,
            "latency_ms_median": measured.latency_ms(0.5),
            "latency_ms_p90": measured.latency_ms(0.9),
            "latency_ms_p99": measured.latency_ms(0.99),
            "latency_ms_min": measured.latency_ms(0),
            "contended": measured.hidden or (drift is not None and drift > 1 + DRIFTED),
            "drift": drift,
            "warnings": _warnings(measured, drift),
        }
    runtime = next(name for name, known in RUNTIMES.items() if known.backend == measured.backend)
    return BenchResult(
        name=f"{runtime} {offer.variant}",
        runtime=runtime,
        variant=offer.variant,
        device=stored.label,
        run=offer.run_name,
        file=offer.path.name,
        file_hash=offer.id,
        threads=measured.threads,
        batch_size=offer.shape[0],
        image_size=(offer.shape[2], offer.shape[3]),
        runtime_version=VERSION,
        options=_options(stored),
        load_ms=measured.load_ms,
        size_bytes=offer.size_bytes,
        failure=failure,
        environment=device.model_dump(exclude={"id"}) | {"date": stored.received},
        **timed,
    )


def _options(stored: Stored) -> dict[str, str]:
    measured, device = stored.measurement, stored.description
    values = {
        "secure_context": device.secure_context,
        "cross_origin_isolated": device.cross_origin_isolated,
        "simd": device.simd,
        "warmup_runs": measured.warmup_runs,
        "runs_per_sample": measured.runs_per_sample,
        "max_relative_error": measured.max_relative_error,
    }
    return {name: str(value).lower() for name, value in values.items() if value is not None}


def _warnings(measured: Measurement, drift: float | None) -> tuple[str, ...]:
    found = []
    if measured.hidden:
        found.append("the page was in the background meanwhile, where browsers take time from it")
    if drift is not None and abs(drift - 1) > DRIFTED:
        found.append(f"the last quarter of runs took {drift:.2f} times as long as the first")
    return tuple(found)


def _failure(stored: Stored, offer: Offer) -> str | None:
    """Why a measurement counts for nothing: it failed, or a fast wrong answer was timed."""
    error = stored.measurement.max_relative_error
    if stored.measurement.failure is None and error is not None and error > offer.tolerance:
        return (
            f"the device's answer differs from ONNX Runtime's by {error:.2g} (relative), allowed are "
            f"{offer.tolerance:g}; its time would mislead"
        )
    return stored.measurement.failure


def latest(stored: Iterable[Stored]) -> list[Stored]:
    """The newest measurement of every model and mode on every device."""
    newest: dict[tuple[int, str, str, int], Stored] = {}
    for one in stored:
        mode = one.measurement
        newest[one.device, mode.model, mode.backend, mode.threads] = one
    return list(newest.values())


def board(stored: Sequence[Stored], offers: Mapping[str, Offer]) -> list[dict[str, Any]]:
    """What the page shows: a row for every model and mode on every device, with whether anything beats it *there*.

    Milliseconds of different devices are no rivals, so that each device has a front of its own.
    """
    rows: list[dict[str, Any]] = []
    for one in latest(stored):
        offer = offers[one.measurement.model]
        result = bench_result(one, offer)
        rows.append(
            {
                "device": one.label,
                "model": offer.label,
                "mode": mode_name(one.measurement.backend, one.measurement.threads),
                "backend": one.measurement.backend,
                "quality": offer.quality.value if offer.quality else None,
                "score": offer.quality.title if offer.quality else "",
                "higher_is_better": offer.quality is None or offer.quality.higher_is_better,
                "latency_ms_median": result.latency_ms_median,
                "latency_ms_p90": result.latency_ms_p90,
                "latency_ms_p99": result.latency_ms_p99,
                "num_runs": result.num_runs,
                "load_ms": result.load_ms,
                "size_bytes": result.size_bytes,
                "contended": result.contended,
                "failure": result.failure,
                "on_front": False,
            }
        )
    for rivals in _rivals(rows):
        sign = 1 if rivals[0]["higher_is_better"] else -1
        for index in pareto_front([(row["latency_ms_median"], sign * row["quality"]) for row in rivals]):
            rivals[index]["on_front"] = True
    return rows


def _rivals(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows that can be compared: of one device, by one score."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["latency_ms_median"] is not None and row["quality"] is not None:
            groups.setdefault((row["device"], row["score"]), []).append(row)
    return list(groups.values())


def mode_name(backend: str, threads: int) -> str:
    """A mode in words."""
    return "WebGPU" if backend == "webgpu" else "1 thread" if threads == 1 else f"{threads} threads"
