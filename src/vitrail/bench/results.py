"""The result of a measurement, and the file that keeps it: JSON lines, one row a candidate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from vitrail.bench.energy.result import Energy
from vitrail.core.errors import BenchError
from vitrail.core.files import append_lines, finite_only, json_text, read_bytes
from vitrail.core.parse import parse_json

Row = TypeVar("Row")

LOG = getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """One candidate's row. Numbers are None where the candidate failed before they could be taken.

    Attributes:
        name: "RUNTIME VARIANT", e.g. "onnxruntime int8".
        runtime: a name in :data:`~vitrail.runtimes.table.RUNTIMES`.
        variant: "float", "int8", ...
        device: the device that ran it, e.g. "Pixel 8, Chrome 156"; empty for the machine that wrote the row.
        run: name of the run folder, where several runs were measured side by side.
        file: the file that was loaded, relative to the run folder.
        file_hash: hash of its contents, so that an accuracy can be told to be that of the same file.
        threads, batch_size, image_size: settings of every run; height and width in pixels.
        runtime_version: version of the runtime's library.
        options: settings of the runtime beyond its defaults.
        num_runs: number of timed runs.
        latency_ms_median, latency_ms_p90, latency_ms_p99, latency_ms_min: wall time of a run.
        cpu_ms_median, cpu_ms_p10: processor time of a run, all threads together.
        baseline: the candidate that ratios are taken to: "NAME", or "RUN/NAME" where several runs were measured.
        latency_ratio: median over the baseline's median of the same measurement; below 1 is faster.
        cpu_ratio: ratio of the 10th percentiles of processor time, the one to trust on a busy machine: programs that
            share caches and memory only ever lengthen a run, and lengthen some models more than others.
        contended: whether wall and processor time disagree, so that other programs disturbed the measurement.
        drift: processor time of the last quarter of runs over that of the first (wall time on other devices).
        warnings: other disturbances, in sentences.
        energy: see :class:`~vitrail.bench.energy.Energy`; None if no meter was asked.
        load_ms: time from the file to the first answer, with compilation, without importing the library.
        peak_memory_mb: peak memory of a fresh process that loads and runs it (10^6 bytes); None where the runtime's
            Python binding imports PyTorch, which would be most of it.
        file_memory_mb: the part of that peak on top of what the process held before it loaded the file; None in rows of
            earlier versions, and where the system does not tell.
        size_bytes: size of the file.
        failure: why there is no measurement, None if there is one.
        environment: see :func:`~vitrail.bench.environment.environment`.
    """

    name: str
    runtime: str
    variant: str
    device: str = ""
    run: str = ""
    file: str = ""
    file_hash: str = ""
    threads: int = 1
    batch_size: int = 1
    image_size: tuple[int, int] = (0, 0)
    runtime_version: str = ""
    options: dict[str, str] = field(default_factory=dict)
    num_runs: int = 0
    latency_ms_median: float | None = None
    latency_ms_p90: float | None = None
    latency_ms_p99: float | None = None
    latency_ms_min: float | None = None
    cpu_ms_median: float | None = None
    cpu_ms_p10: float | None = None
    baseline: str = ""
    latency_ratio: float | None = None
    cpu_ratio: float | None = None
    contended: bool = False
    drift: float | None = None
    warnings: tuple[str, ...] = ()
    energy: Energy | None = None
    load_ms: float | None = None
    peak_memory_mb: float | None = None
    file_memory_mb: float | None = None
    size_bytes: int | None = None
    failure: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float | None:
        """Throughput; None where there is no latency."""
        return self.batch_size / self.latency_ms_median * 1e3 if self.latency_ms_median else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; a number that is not finite is None."""
        values: dict[str, Any] = finite_only(asdict(self) | {"images_per_second": self.images_per_second})
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after a trip through JSON; fields of later versions are left out.

        Raises:
            BenchError: name, runtime or variant is missing, an energy has no source, or a field is of the wrong kind.
        """
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in finite_only(values).items() if k in known}
        missing = {"name", "runtime", "variant"} - set(values)
        if missing:
            raise BenchError(f"not a bench row: it has no {', '.join(sorted(missing))}")
        if values.get("energy"):
            values["energy"] = asdict(Energy.from_dict(values["energy"]))  # as values, so that all are checked
        try:
            # mypy asks the instances for a hash, not the class
            return _checker(cls).validate_python(values)  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BenchError(f"not a bench row: '{where}' is wrong: {first['msg']}") from error


@cache
def _checker(kind: type[Row]) -> TypeAdapter[Row]:
    return TypeAdapter(kind)


def append_results(path: Path, results: Iterable[BenchResult]) -> None:
    """Add rows at the end, also while other processes add theirs.

    Raises:
        VitrailError: the file cannot be written.
    """
    append_lines(path, (json_text(result.to_dict()) for result in results))


def read_results(path: Path) -> list[BenchResult]:
    """All rows, oldest first; a warning counts those that are not ours or were cut short.

    Raises:
        BenchError: the file cannot be read.
    """
    try:
        lines = read_bytes(path).split(b"\n") if path.exists() else []
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from error
    results, wrong = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            results.append(BenchResult.from_dict(parse_json(line.decode(errors="replace"))))
        except (ValueError, TypeError, AttributeError) as error:
            wrong.append(f"line {number} ({' '.join(str(error).split()):.200})")
    if wrong:
        LOG.warning("%s: %d of %d rows are left out, first %s", path, len(wrong), len(wrong) + len(results), wrong[0])
    return results


def latest_results(path: Path, *, device: str | None = "") -> list[BenchResult]:
    """The newest row of every candidate (device, name, threads, batch size), in the order of their first appearance.

    Args:
        path: a run's ``bench.jsonl``.
        device: only rows of this device, the machine that wrote them by default; None for all devices.
    """
    newest: dict[tuple[str, str, int, int], BenchResult] = {}
    for result in read_results(path):
        if device in (None, result.device):
            newest[result.device, result.name, result.threads, result.batch_size] = result
    return list(newest.values())
