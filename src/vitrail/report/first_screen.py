"""What somebody who decides has to know of a run: a few sentences, made of what the run holds and of nothing else.

The page, the terminal and notebooks show the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.bench import BenchResult, latest_results
from vitrail.core.files import file_hash
from vitrail.core.paths import typed_path
from vitrail.evaluation import wilson
from vitrail.report.written import megabytes, number, percent
from vitrail.runs.evaluate import WEIGHTS
from vitrail.runs.export import stale_reason
from vitrail.runs.file_results import own_accuracy
from vitrail.runs.parts import read_parts
from vitrail.runs.run import Run
from vitrail.runs.schema import read_evaluation
from vitrail.runs.too_early import too_early
from vitrail.tasks import Score
from vitrail.tasks.findings.plain_words import grouped, of_hundred
from vitrail.training.recorder import best_row, read_metrics

WIDE = 0.08
"""Width of an interval of a share from which a sentence tells it."""

MANY = 100
"""Number of images that are not called few."""

FRACTIONS = {"half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4, "a fifth": 1 / 5}

NEAR = 0.07
"""Relative distance up to which a share is called by the name of a fraction."""

SAME = 5e-4
"""Difference of two shares that a percentage with one digit does not show."""


@dataclass(frozen=True, kw_only=True)
class FirstScreen:
    """Sentences on a run.

    Attributes:
        sentences: how often it is right, and what the smallest file costs.
        warnings: why the first may mean little.
    """

    sentences: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Everything, the sentences first."""
        return (*self.sentences, *self.warnings)


def first_screen(run: Run) -> FirstScreen:
    """The sentences of a run with a description.

    Raises:
        VitrailError: a file of the run is damaged.
    """
    evaluation = read_evaluation(run)
    report = (evaluation or {}).get("reports", {}).get(WEIGHTS)
    early = too_early(run)
    warnings = [early] if early else []
    if evaluation is None or report is None:
        sentences = [_unevaluated(run)]
    elif _is_old(run, report):
        command = f"vitrail evaluate {typed_path(run.folder)}"
        sentences = [f"The weights have changed since they were evaluated; evaluate them again with: {command}"]
    else:
        sentences = [_right(run, evaluation, report)]
        warnings = [*no_better(run.read().kind.scores, report, evaluation.get("findings", {})), *warnings]
    every = (*sentences, *_smallest_file(run, evaluation or {}))
    return FirstScreen(sentences=every, warnings=tuple(warnings))


def _is_old(run: Run, report: Mapping[str, Any]) -> bool:
    return bool(report.get("file_hash") and run.weights_hash and report["file_hash"] != run.weights_hash)


def _unevaluated(run: Run) -> str:
    """What is known of a run before its evaluation."""
    command, description = f"vitrail evaluate {typed_path(run.folder)}", run.read()
    if description.status == "training":
        return "The training is not finished."
    score = description.kind.scores[0]
    rows = read_metrics(run.metrics) if run.metrics.exists() else []
    value = best_row(rows, score).get(f"val_{score.name}") if rows else None
    if (trained := description.trained) is not None and trained.keep == "probe":
        value = (trained.model_extra or {}).get(f"val_{score.name}")
    known = "" if value is None else f" In training, {_value(score, value)} was reached on the validation images."
    return f"How good it is has not been measured on images it has not seen; do so with: {command}.{known}"


def _value(score: Score, value: float) -> str:
    return f"{score.title} {percent(value) if score.percent else number(value)}"


def _right(run: Run, evaluation: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """How often it is right, and how sure that is where it is not very sure."""
    kind, findings = run.read().kind, evaluation.get("findings", {})
    sentence = kind.task.in_words(report, findings, _images(run, evaluation, report))
    count, value = int(report.get("num_images", 0)), report.get(kind.scores[0].name)
    right = findings.get("right")
    if right is None and kind.task.per_image and count and value is not None and 0 <= value <= 1:
        found = wilson(value * count, count)
        right = {"of": count, "low": found.low, "high": found.high}
    if right and right["of"] and right["high"] - right["low"] > WIDE:
        few = "So few images" if count < MANY else f"{grouped(count)} images"
        expected = of_hundred(right["low"], right["high"])
        return f"{sentence} {few} leave doubt: on others like them, expect {expected}."
    return sentence


def _images(run: Run, evaluation: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The images of an evaluation; what was trained on, or chose the epoch, is never called unseen."""
    count, split, description = int(report.get("num_images", 0)), evaluation.get("split"), run.read()
    images = f"{grouped(count)} image{'s' * (count != 1)}"
    if copies := _learnt(run, str(split)):
        return f"{images} ({grouped(copies)} of them are training images too)"
    if split == "test":
        return f"{images} it has not seen"
    if split == "val":
        chose = " but that chose the epoch" if description.trained and description.trained.keep == "best" else ""
        return f"{images} it was not trained on{chose}"
    return images


def _learnt(run: Run, split: str) -> int:
    """Number of images of a part with the contents of a training image."""
    if not run.images.exists():
        return 0
    rows = read_parts(run.images)
    trained = {row.image for row in rows if row.part == "train" and row.image}
    return sum(row.part == split and row.image in trained for row in rows)


def no_better(scores: tuple[Score, ...], report: Mapping[str, Any], findings: Mapping[str, Any]) -> list[str]:
    """A sentence for the main score, if it may be that of an answer that looks at no image.

    Args:
        scores: of the task.
        report: of the weights.
        findings: ``findings`` of the evaluation.
    """
    trivial, main = findings.get("trivial"), scores[0]
    if not trivial or report.get(main.name) is None or not is_trivial(main, report, findings):
        return []
    value = trivial["scores"][main.name]
    said = percent(value) if main.percent else number(value)
    return [f"This is no better than {trivial['answer']} ({main.title} {said})."]


def is_trivial(score: Score, report: Mapping[str, Any], findings: Mapping[str, Any]) -> bool:
    """Whether a trivial answer is as good, within the interval of a score; False where no trivial answer is known."""
    trivial = ((findings.get("trivial") or {}).get("scores") or {}).get(score.name)
    value = report.get(score.name)
    if trivial is None or value is None:
        return False
    interval = findings.get("intervals", {}).get(score.name, (value, value))
    worst = min(interval, key=score.rank)
    return score.rank(worst) <= score.rank(trivial)


def _smallest_file(run: Run, evaluation: Mapping[str, Any]) -> list[str]:
    """A sentence on the quantised file, else on the float one; none where nothing was exported or measured."""
    results = [row for row in latest_results(run.bench_rows) if row.latency_ms_median is not None]
    results = [row for row in results if row.batch_size == 1]
    for variant in ("int8", *(name for name in run.variants() if name not in ("float", "int8")), "float"):
        file = run.onnx(variant)
        if file.exists() and stale_reason(run, file) is None:
            own = [row for row in results if row.variant == variant and _is_of(row, file)]
            return [_of_file(run, variant, own, evaluation)]
    if results:
        return [f"It answers in {_milliseconds(min(results, key=_cost))}."]
    return []


def _is_of(row: BenchResult, file: Path) -> bool:
    """Whether a measurement is one of a file as it is now."""
    if not row.file:  # of an earlier version
        return not row.runtime.startswith("torch")
    return row.file == file.name and row.file_hash in ("", file_hash(file))


def _of_file(run: Run, variant: str, results: list[BenchResult], evaluation: Mapping[str, Any]) -> str:
    file, whole = run.onnx(variant), run.onnx("float")
    size = file.stat().st_size
    facts = [f"has {megabytes(size)}"]
    if variant != "float" and whole.exists() and stale_reason(run, whole) is None:
        facts = [f"is {share_in_words(size / max(whole.stat().st_size, 1))} the size ({megabytes(size)})"]
    best = min(results, key=_cost, default=None)
    if best is not None:
        facts.append(f"answers in {_milliseconds(best)}")
    if variant != "float" and (told := _change(run, variant, best, evaluation)):
        facts.append(told)
    bits = variant.removeprefix("int")
    name = "ONNX file" if variant == "float" else f"{bits}-bit file" if bits.isdigit() else f"{variant} file"
    listed = facts[0] if len(facts) == 1 else f"{', '.join(facts[:-1])} and {facts[-1]}"
    return f"The {name} {listed}."


def _cost(row: BenchResult) -> float:
    return _time(row)[0]


def _time(row: BenchResult) -> tuple[float, str]:
    """Milliseconds of an image; processor time where other programs disturbed the measurement."""
    if row.contended and row.threads == 1 and row.cpu_ms_median is not None:
        return row.cpu_ms_median, " of processor time"
    return float(row.latency_ms_median or 0.0), ""


def _milliseconds(row: BenchResult) -> str:
    milliseconds, what = _time(row)
    return f"{number(milliseconds)} ms{what}"


def _change(run: Run, variant: str, best: BenchResult | None, evaluation: Mapping[str, Any]) -> str:
    """How much the main score differs from that of the weights; "" where it is not known."""
    score, reports = run.read().kind.scores[0], evaluation.get("reports", {})
    before = reports.get(WEIGHTS, {}).get(score.name)
    after = reports.get(f"onnx-{variant}", {}).get(score.name)
    if best is not None:
        after = own_accuracy(run, best, reports)[0]
    if before is None or after is None:
        return ""
    difference = after - before
    if abs(difference) < (SAME if score.percent else SAME * max(abs(before), 1e-9)):
        return f"has the same {score.title}"
    worse = "better" if score.rank(difference) > 0 else "worse"
    amount = f"{100 * abs(difference):.1f} points" if score.percent else number(abs(difference))
    return f"is {amount} {worse} in {score.title}"


def share_in_words(share: float) -> str:
    """A share of a size: "half", "a third", else "29 % of"."""
    for name, fraction in FRACTIONS.items():
        if abs(share / fraction - 1) <= NEAR:
            return name if name == "half" else f"{name} of"
    return f"{100 * share:.0f} % of"
