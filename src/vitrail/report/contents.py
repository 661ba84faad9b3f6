"""Contents of the report, read from the artefacts of a run; a part without its artefact is None."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup

from vitrail.bench import BenchResult, latest_results, pareto_front
from vitrail.core.checked import checked
from vitrail.quantization import PRESETS
from vitrail.report.charts import curves, reliability_diagram
from vitrail.report.findings_section import FindingsSection, read_findings
from vitrail.report.fronts import ParetoPoint, pareto_plot
from vitrail.runs.evaluate import WEIGHTS
from vitrail.runs.export import stale_reason
from vitrail.runs.file_results import own_accuracy
from vitrail.runs.load import task_of
from vitrail.runs.run import Run
from vitrail.runs.schema import PlaceEntry, PlanFile, read_file, read_record
from vitrail.runs.telling import telling_scores
from vitrail.runtimes import FORMATS, runtime_title
from vitrail.training.recorder import read_metrics

MAX_MATRIX = 20
"""Largest number of classes with a whole confusion matrix; above it, only the most frequent confusions are shown."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The evaluation section.

    Attributes:
        split: "test" or "validation".
        scores: scores of the task, as in ``evaluation.json``; the first is the main one.
        rows: one report per evaluated file, with ``name``, the ``value`` of the main score, and its ``change`` from the
            first report.
        first: report of the PyTorch model.
        confusions: (label, predicted, count) of the most frequent wrong answers, in falling order of count.
        matrix: confusion matrix as rows of (count, share of the row); None if there are too many classes.
        reliability: reliability diagram; None without calibration bins.
        findings: what is shown beside the scores.
        difference: caption of pictures of mistakes; "" without such pictures.
    """

    split: str
    scores: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    first: Mapping[str, Any]
    confusions: Sequence[tuple[str, str, int]]
    matrix: Sequence[Sequence[tuple[int, float]]] | None
    reliability: Markup | None
    findings: FindingsSection
    difference: str


def read_accuracy(run: Run, evaluation: Mapping[str, Any] | None) -> Accuracy | None:
    """The evaluation section from the contents of ``evaluation.json``; None if it has no reports."""
    reports = (evaluation or {}).get("reports") or {}
    if not evaluation or not reports:
        return None
    first = reports.get(WEIGHTS) or next(iter(reports.values()))
    scores = telling_scores([asdict(score) for score in task_of(run).scores], len(first["per_class"]))
    main = scores[0]["name"]
    rows = [
        report
        | {"name": report_name(key), "value": report[main], "change": _change(report[main], first[main]), "key": key}
        for key, report in reports.items()
    ]
    classes = [row["name"] for row in first["per_class"]]
    counts = first.get("confusion", [])
    wrong = [
        (classes[i], classes[j], count)
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    bins = {row["name"]: row["calibration"] for row in rows if row.get("calibration")}
    return Accuracy(
        split={"val": "validation"}.get(evaluation["split"], evaluation["split"]),
        scores=scores,
        rows=rows,
        first=first,
        confusions=sorted(wrong, key=lambda one: -one[2])[:8],
        matrix=[[(n, n / max(sum(row), 1)) for n in row] for row in counts] if 0 < len(counts) <= MAX_MATRIX else None,
        reliability=reliability_diagram(
            "reliability",
            "Accuracy over confidence for every evaluated file; on the diagonal the two are equal.",
            bins,
        )
        if bins
        else None,
        findings=read_findings(evaluation.get("findings", {}), scores, first),
        difference=evaluation.get("difference", ""),
    )


def _change(value: float | None, before: float | None) -> float | None:
    return None if value is None or before is None else value - before


def report_name(key: str) -> str:
    """Title of a report, e.g. "ONNX, int8" for "onnx-int8", "LiteRT, float" for "litert-float"."""
    kind, _, variant = key.partition("-")
    return f"{'ONNX' if kind == 'onnx' else runtime_title(kind)}, {variant}"


def candidate_name(result: BenchResult) -> str:
    """Title of a candidate, e.g. "OpenVINO, int8"; PyTorch is always float, and its title omits the variant."""
    runtime = runtime_title(result.runtime)
    return runtime if result.runtime.startswith("torch") else f"{runtime}, {result.variant}"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The size-and-latency section.

    Attributes:
        rows: one entry per candidate: ``result``, ``name``, ``top1`` (or the task's main score; None if unknown),
            ``width`` of its bar in percent, ``on_front``, ``ratio``.
        setting: text of the number of threads, images per run and image size.
        baseline: name of the baseline of the ratios; empty if nothing could be timed.
        contended: True if other programs disturbed a measurement.
        energy, estimated: True if a row has an energy, or an estimated energy.
        plot: plot of accuracy over latency; None without accuracies.
        cost: quantity on the cost axis of the plot.
        place: machine of the measurement.
    """

    rows: Sequence[Mapping[str, Any]]
    setting: str
    baseline: str
    contended: bool
    energy: bool
    estimated: bool
    plot: Markup | None
    cost: str
    place: PlaceEntry | None


def read_speed(run: Run, accuracy: Accuracy | None) -> Speed | None:
    """The size-and-latency section from ``bench.jsonl``; None if it has no rows."""
    if not (results := latest_results(run.bench_rows)):
        return None
    reports = {row["key"]: row for row in accuracy.rows} if accuracy else {}
    main = accuracy.scores[0] if accuracy else None
    top1 = [own_accuracy(run, result, reports)[0] for result in results]
    contended = any(result.contended for result in results)
    # Other programs stretch wall time; processor time is the cost of the model alone.
    field = "cpu_ms_median" if contended else "latency_ms_median"
    sign = 1 if main is None or main["higher_is_better"] else -1
    known = [
        (result, (getattr(result, field), sign * value))
        for result, value in zip(results, top1, strict=True)
        if getattr(result, field) is not None and value is not None
    ]
    front = [known[i][0] for i in pareto_front([place for _, place in known])]
    slowest = max((getattr(r, field) or 0 for r in results), default=0) or 1
    rows: list[dict[str, Any]] = [
        {
            "result": result,
            "name": candidate_name(result) + setting,
            "top1": share,
            "width": 100 * (getattr(result, field) or 0) / slowest,
            "on_front": result in front,
            "ratio": result.cpu_ratio if contended else result.latency_ratio,
        }
        for result, share, setting in zip(results, top1, _different_settings(results), strict=True)
    ]
    cost = "processor time" if contended else "latency"
    return Speed(
        rows=rows,
        setting=_setting(results),
        baseline=next((row["name"] for row in rows if row["ratio"] == 1), results[0].baseline),
        contended=contended,
        energy=any(result.energy for result in results),
        estimated=any(result.energy.estimated for result in results if result.energy),
        plot=_plot(rows, field, cost, main) if main else None,
        cost=cost,
        place=_place(run, results[0]),
    )


def _place(run: Run, result: BenchResult) -> PlaceEntry | None:
    """The machine of a measurement; None if the row does not describe it."""
    known = {name: value for name, value in result.environment.items() if value is not None}
    source = f"{run.bench_rows}: environment of '{result.name}'"
    return checked(PlaceEntry, known, source, f"measure again with: vitrail bench {run.folder}") if known else None


def _plot(rows: Sequence[Mapping[str, Any]], field: str, cost: str, main: Mapping[str, Any]) -> Markup | None:
    """Accuracy over ``field`` of the results; None if no row has both."""
    points = [
        ParetoPoint(
            label=row["name"],
            group=row["result"].runtime,
            cost=getattr(row["result"], field),
            quality=(100 if main["percent"] else 1) * row["top1"],
            on_front=row["on_front"],
        )
        for row in rows
        if getattr(row["result"], field) is not None and row["top1"] is not None
    ]
    if not points:
        return None
    best = ", ".join(point.label for point in points if point.on_front)
    alt = f"{main['title']} over {cost} of {len(points)} candidates. On the Pareto front: {best}."
    return pareto_plot("pareto", alt, points, f"{cost}, median (ms)", main["title"] + " (%)" * main["percent"])


def _different_settings(results: Sequence[BenchResult]) -> list[str]:
    """Endings of row names, for rows that differ in threads or batch size."""
    several_threads = len({result.threads for result in results}) > 1
    several_batches = len({result.batch_size for result in results}) > 1
    return [
        (f", threads {result.threads}" if several_threads else "")
        + (f", batch {result.batch_size}" if several_batches else "")
        for result in results
    ]


def _setting(results: Sequence[BenchResult]) -> str:
    height, width = results[0].image_size
    images, threads = sorted({r.batch_size for r in results}), sorted({r.threads for r in results})
    return f"{_either(images, 'image')} of {height}×{width} pixels a run, {_either(threads, 'thread')}"


def counted(count: int, thing: str) -> str:
    """A number with its noun, e.g. "1 epoch" or "30 epochs"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _either(numbers: Sequence[int], thing: str) -> str:
    """Numbers with their noun, e.g. "one image" or "1 or 8 images"."""
    return f"one {thing}" if list(numbers) == [1] else f"{' or '.join(map(str, numbers))} {thing}s"


def read_curves(run: Run) -> list[Markup]:
    """Charts of loss, scores and learning rate from ``metrics.csv``; empty without rows."""
    if not run.metrics.exists() or not (rows := read_metrics(run.metrics)):
        return []

    def column(name: str) -> list[float]:
        return [float(row.get(name) or "nan") for row in rows]

    def present(names: Mapping[str, str]) -> dict[str, list[float]]:
        return {label: column(name) for name, label in names.items() if name in rows[0]}

    epochs = column("epoch")
    scores = telling_scores([asdict(score) for score in task_of(run).scores], len(run.read().classes))
    shares = {f"val_{score['name']}": score["title"] for score in scores if score["percent"]}
    numbers = {f"val_{score['name']}": score["title"] for score in scores if not score["percent"]}
    charts = []
    for name, title, lines, percent in (
        ("loss", "Loss", present({"train_loss": "training", "val_loss": "validation"}), False),
        ("accuracy", "Validation accuracy", present(shares), True),
        ("scores", "Validation scores", present(numbers), False),
        ("learning-rate", "Learning rate", present({"learning_rate": "learning rate"}), False),
    ):
        if lines:
            last = ", ".join(f"{label} ends at {values[-1]:.4g}" for label, values in lines.items())
            charts.append(
                curves(
                    name, title, f"{title} over {counted(len(rows), 'epoch')}: {last}.", epochs, lines, percent=percent
                )
            )
    return charts


def read_exports(run: Run) -> list[dict[str, Any]]:
    """Records of the exported files in the run, ONNX first, with their present sizes."""
    records = []
    for format, variant in itertools.product(FORMATS, run.variants()):
        path = run.exported(format, variant)
        if path.exists():
            record = read_record(run, path)
            # Other formats may be folders or have a second file of weights; the record counts all of it.
            size = path.stat().st_size if format == "onnx" else record.get("size_bytes") or path.stat().st_size
            facts = {"file": path.name, "variant": variant, "size_bytes": size, "stale": stale_reason(run, path)}
            records.append(record | facts)
    return records


def _observer(config: Mapping[str, Any]) -> str:
    """The method of the ranges: the user's, else that of the preset."""
    return config.get("observer") or PRESETS.get(config.get("preset", ""), {}).get("observer", "")


def read_quantization(run: Run) -> dict[str, Any] | None:
    """Bits and counts from ``quantization.json``; None without the file."""
    if not run.quantization.exists():
        return None
    plan = read_file(PlanFile, run.quantization, f"make it again with: vitrail quantize {run.folder}")
    names = [operand.name for operand in plan.operands]
    return {
        "config": plan.config,
        "observer": _observer(plan.config),
        "num_images": plan.num_images,
        "num_operands": len(names),
        "num_operations": len({name.rsplit(":", 1)[0] for name in names}),
        "skipped": plan.skipped,
        "notes": plan.notes,
    }
