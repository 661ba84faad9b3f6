"""Accuracy over latency, energy and size of several runs on every device, as a page, pictures and a table."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitrail.core.errors import RunError
from vitrail.core.files import write_text
from vitrail.core.paths import typed_path
from vitrail.report.fronts import ParetoPoint, pareto_plot, save_pareto_plot, with_fronts
from vitrail.report.references import Reference
from vitrail.report.stained_glass import window
from vitrail.report.written import megabytes, number, percent
from vitrail.runs.file_results import FileResult, read_file_results
from vitrail.runs.run import Run
from vitrail.tasks import Score

COLUMNS = (
    *(
        "device",
        "run",
        "model",
        "file",
        "runtime",
        "variant",
        "threads",
        "batch_size",
        "score",
        "accuracy",
        "accuracy_note",
    ),
    *("latency_ms", "latency_is", "latency_ms_p90", "latency_ms_p99", "images_per_second", "size_mb", "memory_mb"),
    *("energy_mj", "energy_low_mj", "energy_high_mj", "energy_source", "contended", "fronts"),
)


@dataclass(frozen=True)
class _Cost:
    """A cost axis: latency, energy or size."""

    key: str
    axis: str
    read: Callable[[FileResult], float | None]
    published: Callable[[Reference], float | None]


COSTS = (
    _Cost("latency", "latency of one image, median (ms)", lambda e: e.latency_ms, lambda r: r.latency_ms),
    _Cost("energy", "energy of one image above idling (mJ)", lambda e: e.energy_mj, lambda r: r.energy_mj),
    _Cost("size", "file (MB)", lambda e: e.size_mb, lambda r: r.size_mb),
)


@dataclass(frozen=True)
class Front:
    """One plot of one device: its cost, its points and the files on its front."""

    device: str
    cost: _Cost
    points: Sequence[ParetoPoint]
    best: Sequence[FileResult]
    score: Score

    @property
    def quality(self) -> str:
        """Label of the accuracy axis."""
        return self.score.title + " (%)" * self.score.percent

    @property
    def stem(self) -> str:
        """Name of the picture files without suffix."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.cost.key} {self.device}".casefold()).strip("-")

    def svg(self) -> Markup:
        names = ", ".join(point.text for point in self.points if point.on_front)
        alt = f"{self.score.title} over {self.cost.axis} of {len(self.points)} points. On the Pareto front: {names}."
        return pareto_plot(self.stem, alt, self.points, self.cost.axis, self.quality)


def write_pareto(
    runs: Sequence[Run], folder: Path, *, device: str | None = None, references: Sequence[Reference] = ()
) -> list[Path]:
    """Write ``pareto.html``, ``pareto.csv``, and every plot as SVG and PNG.

    Args:
        runs: runs with measurements and evaluations.
        folder: folder of the files.
        device: part of the device name; other devices are left out.
        references: published values, drawn as crosses in every plot of a cost that they have; never on a front.

    Returns:
        the files, the page first.

    Raises:
        RunError: nothing was measured, or no measured file was evaluated.
    """
    entries = read_file_results(runs, device=device)
    if not any(entry.accuracy is not None for entry in entries):
        again = " && ".join(f"vitrail evaluate {typed_path(run.folder)}" for run in runs)
        raise RunError(f"no accuracy is known of what was measured; repeat: {again}")
    fronts = find_fronts(entries, references)
    page, table = folder / "pareto.html", folder / "pareto.csv"
    write_text(table, to_csv(entries, fronts))
    written = [page, table]
    for front in fronts:
        for suffix in (".svg", ".png"):
            path = folder / f"{front.stem}{suffix}"
            save_pareto_plot(path, front.points, front.cost.axis, front.quality)
            written.append(path)
    write_text(page, _page(entries, fronts, references))
    return written


def find_fronts(entries: Sequence[FileResult], references: Sequence[Reference] = ()) -> list[Front]:
    """One plot per device and cost known there; latency and energy are of batch size 1."""
    fronts = []
    for device in dict.fromkeys(entry.device for entry in entries):
        here = [entry for entry in entries if entry.device == device and entry.accuracy is not None]
        for cost in COSTS:
            used = [entry for entry in _comparable(here, cost) if cost.read(entry) is not None]
            if not used:
                continue
            published = [
                ParetoPoint(label=r.label, group="", cost=value, quality=100 * r.accuracy, published=True)
                for r in references
                if (value := cost.published(r)) is not None
            ]
            points = with_fronts([*(_point(entry, cost) for entry in used), *published])
            best = [entry for entry, point in zip(used, points, strict=False) if point.on_front]
            fronts.append(Front(device, cost, points, best, used[0].score))
    return fronts


def _comparable(entries: Sequence[FileResult], cost: _Cost) -> list[FileResult]:
    if cost.key != "size":
        return [entry for entry in entries if entry.result.batch_size == 1]
    # The size of a file does not depend on the runtime.
    return list({(entry.run, entry.result.file, entry.accuracy): entry for entry in reversed(entries)}.values())[::-1]


def _point(entry: FileResult, cost: _Cost) -> ParetoPoint:
    value = cost.read(entry)
    assert value is not None
    assert entry.quality is not None
    if cost.key == "size":
        label, group = f"{entry.run}/{entry.result.file}", entry.result.variant
    else:
        disturbed = cost.key == "latency" and entry.uses_processor_time
        label, group = entry.name + ("*" if disturbed else ""), entry.result.runtime
    estimated = cost.key == "energy" and entry.energy_estimated
    return ParetoPoint(label=label, group=group, cost=value, quality=entry.quality, estimated=estimated)


def to_csv(entries: Sequence[FileResult], fronts: Sequence[Front]) -> str:
    """One row per entry; ``fronts`` names the costs on whose front the entry is."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(entry, fronts) for entry in entries)
    return text.getvalue()


def _row(entry: FileResult, fronts: Sequence[Front]) -> dict[str, Any]:
    result, energy = entry.result, entry.result.energy
    interval = (energy.ci95_mj if energy else None) or (None, None)
    return {
        "device": entry.device,
        "run": entry.run,
        "model": entry.model,
        "file": result.file,
        "runtime": result.runtime,
        "variant": result.variant,
        "threads": result.threads,
        "batch_size": result.batch_size,
        "score": entry.score.name,
        "accuracy": entry.accuracy,
        "accuracy_note": entry.note,
        "latency_ms": entry.latency_ms,
        "latency_is": "processor time" if entry.uses_processor_time else "wall time",
        "latency_ms_p90": result.latency_ms_p90,
        "latency_ms_p99": result.latency_ms_p99,
        "images_per_second": result.images_per_second,
        "size_mb": entry.size_mb,
        "memory_mb": entry.memory_mb,
        "energy_mj": entry.energy_mj,
        "energy_low_mj": interval[0],
        "energy_high_mj": interval[1],
        "energy_source": energy.source if energy else "",
        "contended": result.contended,
        "fronts": " ".join(front.cost.key for front in fronts if entry in front.best),
    }


def best_first(entry: FileResult) -> tuple[float, float]:
    """Sort key: the most accurate first, then the fastest; unknown values last."""
    return math.inf if entry.quality is None else -entry.quality, entry.latency_ms or math.inf


def _page(entries: Sequence[FileResult], fronts: Sequence[Front], references: Sequence[Reference]) -> str:
    environment = Environment(
        loader=PackageLoader("vitrail.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number, megabytes=megabytes)
    ranked = sorted(entries, key=best_first)
    return environment.get_template("pareto.html.j2").render(
        runs=list(dict.fromkeys(entry.run for entry in entries)),
        window=window(" ".join(dict.fromkeys(entry.run for entry in entries))),
        devices=[
            {
                "name": device,
                "entries": [entry for entry in ranked if entry.device == device],
                "fronts": [front for front in fronts if front.device == device],
            }
            for device in dict.fromkeys(entry.device for entry in entries)
        ],
        references=references,
        score=entries[0].score,
    )
