"""Accuracy, latency, size and energy of every measured file.

Each accuracy is that of the measured file itself: never that of the float model for an int8 file, of an earlier file
or of a file of other weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitrail.bench import BenchResult, latest_results
from vitrail.core.errors import RunError
from vitrail.core.paths import typed_path
from vitrail.runs.evaluate import WEIGHTS, report_key
from vitrail.runs.export import unfit_reason
from vitrail.runs.load import task_of
from vitrail.runs.run import Run
from vitrail.runs.schema import read_evaluation
from vitrail.runtimes import RUNTIMES
from vitrail.tasks import Score

THIS_MACHINE = "this machine"


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """A file in a runtime on a device.

    Attributes:
        run: name of the run folder.
        model: name of the model.
        result: newest measurement of the file.
        score: main score of the task, such as top-1 of a classifier.
        accuracy: value of the score for this very file; None if it is not known.
        num_images: number of images that the accuracy was measured on.
        note: reason why there is no accuracy.
    """

    run: str
    model: str
    result: BenchResult
    score: Score
    accuracy: float | None = None
    num_images: int = 0
    note: str = ""

    @property
    def name(self) -> str:
        """Run, runtime and variant, with the threads and the batch size if above 1."""
        threads = f", {self.result.threads} threads" if self.result.threads > 1 else ""
        batch = f", batch {self.result.batch_size}" if self.result.batch_size > 1 else ""
        return f"{self.run}/{self.result.name}{threads}{batch}"

    @property
    def quality(self) -> float | None:
        """The accuracy, negative if lower scores are better, in percent if it is a share."""
        return None if self.accuracy is None else self.score.rank(self.accuracy) * (100 if self.score.percent else 1)

    @property
    def device(self) -> str:
        return self.result.device or THIS_MACHINE

    @property
    def uses_processor_time(self) -> bool:
        """Whether processor time replaces latency, because other programs disturbed a measurement with one thread."""
        return self.result.contended and self.result.threads == 1 and self.result.cpu_ms_median is not None

    @property
    def latency_ms(self) -> float | None:
        return self.result.cpu_ms_median if self.uses_processor_time else self.result.latency_ms_median

    @property
    def size_mb(self) -> float | None:
        return None if self.result.size_bytes is None else self.result.size_bytes / 1e6

    @property
    def energy_mj(self) -> float | None:
        return self.result.energy.energy_mj if self.result.energy else None

    @property
    def energy_estimated(self) -> bool:
        """Whether the energy was not measured."""
        return self.result.energy is not None and self.result.energy.estimated

    @property
    def memory_mb(self) -> float | None:
        return self.result.peak_memory_mb


def read_file_results(runs: Sequence[Run], *, device: str | None = None) -> list[FileResult]:
    """All measurements of the runs, on this machine and on other devices.

    Args:
        runs: runs with a ``bench.jsonl``.
        device: part of the device name, in upper or lower case; "this machine", or a part of the name of its processor,
            is the machine that the runs were measured on.

    Raises:
        RunError: there is no measurement, or none on such a device, or the tasks have different main scores.
    """
    entries = [found for run in runs for found in _results_of(run)]
    titles = list(dict.fromkeys(entry.score.title for entry in entries))
    if len(titles) > 1:
        raise RunError(f"the runs' tasks are judged by different scores ({', '.join(titles)}); name runs of one task")
    if not entries:
        folders = " ".join(typed_path(run.folder) for run in runs)
        raise RunError(f"nothing was measured of {folders}; measure with: vitrail bench {folders}")
    if device is None:
        return entries
    wanted = device.casefold()
    kept = [entry for entry in entries if wanted in _device_words(entry).casefold()]
    if not kept:
        devices = ", ".join(dict.fromkeys(entry.device for entry in entries))
        raise RunError(f"nothing was measured on '{device}'; there are measurements on {devices}")
    return kept


def accuracy_key(result: BenchResult) -> str:
    """The name of the report in ``evaluation.json`` with the accuracy of a measured file."""
    runtime = RUNTIMES.get(result.runtime)
    if runtime is not None and runtime.format is None:
        return WEIGHTS
    return report_key(result.runtime, result.variant)


def own_accuracy(run: Run, result: BenchResult, reports: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, str]:
    """The main score of the measured file, or None and the reason.

    Args:
        run: run of the file.
        result: measurement of the file.
        reports: ``reports`` of ``evaluation.json``.
    """
    if result.file and (unfit := unfit_reason(run, run.folder / result.file, result.runtime)):
        return None, unfit
    score = task_of(run).scores[0].name
    report = reports.get(accuracy_key(result))
    if report is None or report.get(score) is None:
        return None, f"this file was not evaluated in this runtime; repeat: vitrail evaluate {typed_path(run.folder)}"
    evaluated = report.get("file_hash", "")
    if evaluated and result.file_hash and evaluated != result.file_hash:
        folder = typed_path(run.folder)
        return None, (
            "the evaluation is of another file than the measurement; "
            f"repeat: vitrail evaluate {folder} && vitrail bench {folder}"
        )
    return float(report[score]), ""


def _results_of(run: Run) -> list[FileResult]:
    reports, description = (read_evaluation(run) or {}).get("reports", {}), run.read()
    found = []
    for result in latest_results(run.bench_rows, device=None):
        accuracy, note = own_accuracy(run, result, reports)
        found.append(
            FileResult(
                run=run.folder.resolve().name,
                model=description.model.name,
                result=result,
                score=description.kind.scores[0],
                accuracy=accuracy,
                num_images=int(reports[accuracy_key(result)].get("num_images", 0)) if accuracy is not None else 0,
                note=note,
            )
        )
    return found


def _device_words(entry: FileResult) -> str:
    return entry.device if entry.result.device else f"{THIS_MACHINE} {entry.result.environment.get('cpu', '')}"
