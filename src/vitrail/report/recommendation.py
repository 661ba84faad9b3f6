"""The recommended file: the most accurate one within every limit, with reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError, VitrailError
from vitrail.runs.file_results import FileResult

Z_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a file; None is no limit.

    Attributes:
        max_latency_ms: Largest median latency of one image in ms. Default: no limit.
        max_size_mb: Largest size of the file in MB (10^6 bytes). Default: no limit.
        max_energy_mj: Largest energy of one image above idling in mJ. Default: no limit.
        max_memory_mb: Largest peak memory of a fresh process in MB. Default: no limit.
        min_accuracy: Least accuracy (top-1, or the task's main score), a share between 0 and 1. Default: no limit.
    """

    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    max_energy_mj: float | None = None
    max_memory_mb: float | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigError("is not above 0; give a positive number, or leave it out", **{field.name: value})
        if self.min_accuracy is not None and self.min_accuracy > 1:
            raise ConfigError("is above 1; give a share, e.g. 0.9 for 90 %", min_accuracy=self.min_accuracy)


@dataclass(frozen=True)
class _Quantity:
    """A quantity with a limit: its value, its text and its remedy; ``sign`` is -1 if more is better."""

    read: Callable[[FileResult], float | None]
    best: str
    text: Callable[[float], str]
    remedy: str
    sign: int = 1


QUANTITIES: Mapping[str, _Quantity] = {
    "max_latency_ms": _Quantity(lambda e: e.latency_ms, "the fastest", lambda v: f"{v:.3g} ms", "vitrail bench RUN"),
    "max_size_mb": _Quantity(lambda e: e.size_mb, "the smallest", lambda v: f"{v:.3g} MB", "vitrail bench RUN"),
    "max_energy_mj": _Quantity(
        lambda e: e.energy_mj, "the lowest", lambda v: f"{v:.3g} mJ", "vitrail bench RUN --energy METER"
    ),
    "max_memory_mb": _Quantity(lambda e: e.memory_mb, "the lowest", lambda v: f"{v:.3g} MB", "vitrail bench RUN"),
    "min_accuracy": _Quantity(
        lambda e: e.accuracy, "the most accurate", lambda v: f"{100 * v:.1f} %", "vitrail evaluate RUN", sign=-1
    ),
}


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The recommended file and the reasons.

    Attributes:
        best: recommended file.
        next_best: second choice; None if no other file is within the limits.
        reasons: reasons of the choice, one phrase each.
        num_considered: number of measured files with an accuracy, at batch size 1.
        num_fitting: number of considered files within every limit.
    """

    best: FileResult
    next_best: FileResult | None
    reasons: tuple[str, ...]
    num_considered: int
    num_fitting: int


def recommend(entries: Sequence[FileResult], limits: Limits) -> Recommendation:
    """The most accurate entry within the limits; among equals the faster, then the smaller.

    Only measurements at batch size 1 are considered, and only files whose own accuracy is known.

    Raises:
        VitrailError: no file is within the limits; the message names the limit or the missing measurement.
    """
    single = [entry for entry in entries if entry.result.batch_size == 1 and entry.latency_ms is not None]
    known = [entry for entry in single if entry.accuracy is not None]
    if not known:
        notes = (
            "; ".join(dict.fromkeys(e.note for e in single if e.note)) or "nothing was measured with one image a run"
        )
        raise VitrailError(f"none of {len(entries)} measurements can be recommended: {notes}")
    limited = {name: value for name in QUANTITIES if (value := getattr(limits, name)) is not None}
    fitting = sorted((e for e in known if all(_keeps(e, n, v) for n, v in limited.items())), key=_rank)
    if not fitting:
        raise VitrailError(_nothing_fits(known, limited))
    best, after = fitting[0], fitting[1] if len(fitting) > 1 else None
    reasons = (*_why(best, len(fitting), len(known), limited), *_against(best, after), *_unknown(known, limited))
    return Recommendation(
        best=best, next_best=after, reasons=reasons, num_considered=len(known), num_fitting=len(fitting)
    )


def _keeps(entry: FileResult, name: str, limit: float) -> bool:
    quantity = QUANTITIES[name]
    value = quantity.read(entry)
    return value is not None and quantity.sign * value <= quantity.sign * limit


def _rank(entry: FileResult) -> tuple[float, float, float]:
    return -(entry.quality or 0.0), entry.latency_ms or math.inf, entry.size_mb or math.inf


def _option(name: str, limit: float) -> str:
    return f"--{name.replace('_', '-')} {limit:g}"


def _why(best: FileResult, num_fitting: int, num_known: int, limited: Mapping[str, float]) -> list[str]:
    options = " ".join(_option(name, limit) for name, limit in limited.items())
    accuracy = QUANTITIES["min_accuracy"].text(best.accuracy or 0.0)
    if not limited:
        reasons = [f"the most accurate of {num_known} candidates: {accuracy}"]
    elif num_fitting == 1:
        reasons = [f"the only one of {num_known} candidates within {options}: {accuracy}"]
    else:
        reasons = [f"the most accurate of {num_fitting} (of {num_known}) candidates within {options}: {accuracy}"]
    for name, limit in limited.items():
        quantity = QUANTITIES[name]
        value = quantity.read(best)
        if name != "min_accuracy" and value is not None:
            estimate = ", an estimate" if name == "max_energy_mj" and best.energy_estimated else ""
            reasons.append(f"{quantity.text(value)}{estimate}, where {quantity.text(limit)} are allowed")
    if best.uses_processor_time:
        reasons.append("its latency is processor time: other programs disturbed the measurement")
    return reasons


def _against(best: FileResult, after: FileResult | None) -> list[str]:
    """The second choice compared with the best in accuracy, latency and size."""
    if after is None:
        return []
    lost = 100 * ((best.accuracy or 0.0) - (after.accuracy or 0.0))
    text = f"next best is {after.name}: {lost:.1f} points less accurate"
    if best.latency_ms and after.latency_ms:
        text += f", {after.latency_ms / best.latency_ms:.2f} times its latency"
    if best.size_mb and after.size_mb:
        text += f", {after.size_mb / best.size_mb:.2f} times its size"
    if 0 < lost < 100 * _chance(best, after):
        text += f" (a difference within chance on {best.num_images} images)"
    return [text]


def _chance(one: FileResult, other: FileResult) -> float:
    """Half the 95 % interval of the difference of two independent shares, an upper bound on the same images."""
    variances = [
        share * (1 - share) / entry.num_images
        for entry in (one, other)
        if entry.num_images and (share := entry.accuracy) is not None
    ]
    return Z_95 * math.sqrt(sum(variances))


def _unknown(known: Sequence[FileResult], limited: Mapping[str, float]) -> list[str]:
    reasons = []
    for name in limited:
        missing = [entry for entry in known if QUANTITIES[name].read(entry) is None]
        if missing:
            what = name.split("_")[1]
            reasons.append(f"{len(missing)} have no {what} and were left out; repeat: {QUANTITIES[name].remedy}")
    return reasons


def _nothing_fits(known: Sequence[FileResult], limited: Mapping[str, float]) -> str:
    """Message with the limit that excludes every file, or the limits that do so together, and the nearest file."""
    for name, limit in limited.items():
        quantity = QUANTITIES[name]
        values = [(quantity.sign * value, entry) for entry in known if (value := quantity.read(entry)) is not None]
        if not values:
            what = name.split("_")[1]
            lacking = f"none of {len(known)} files has a measured {what} for {_option(name, limit)}"
            return f"{lacking}; repeat: {quantity.remedy}"
        if not any(_keeps(entry, name, limit) for _, entry in values):
            value, nearest = min(values, key=lambda pair: pair[0])
            return (
                f"{_option(name, limit)} excludes all of {len(known)} files: {quantity.best} is {nearest.name} with "
                f"{quantity.text(quantity.sign * value)}; relax it, or train, quantise and measure another model"
            )
    nearest = min(known, key=lambda entry: sum(not _keeps(entry, n, v) for n, v in limited.items()))
    broken = [_option(n, v) for n, v in limited.items() if not _keeps(nearest, n, v)]
    options = " ".join(_option(n, v) for n, v in limited.items())
    return (
        f"each limit is kept by some of {len(known)} files, but not {options} "
        f"by one; the nearest, {nearest.name}, breaks {' '.join(broken)}; relax it"
    )
