"""The accuracy of an entry is the measured file's own, or none at all."""

from __future__ import annotations

import json

import pytest
from report.pretend import report, row

from vitrail.bench import append_results
from vitrail.core.errors import RunError
from vitrail.core.files import read_json, write_json
from vitrail.runs.file_results import own_accuracy, read_file_results
from vitrail.runs.run import Run

REPORTS = {"torch-float": report(0.9, 1.0), "onnx-float": report(0.89, 1.0), "onnx-int8": report(0.5, 0.6)}
REPORTS |= {"litert-float": report(0.87, 0.99), "openvino-int8": report(0.3, 0.4)}


@pytest.mark.parametrize(
    ("name", "top1"),
    [
        ("torch float", 0.9),
        ("torch-compile float", 0.9),
        ("onnxruntime float", 0.89),
        ("onnxruntime int8", 0.5),
        ("openvino int8", 0.3),  # the same file, and not the same answers
        ("openvino float", None),
        ("onnxruntime-web int8", 0.5),  # its answers are compared with ONNX Runtime's before they are timed
        ("litert float", 0.87),
        ("executorch float", None),  # nor that of another float file
        ("onnxruntime w4a8", None),  # never the float model's
    ],
)
def test_every_file_has_its_own_accuracy(bare_run, name, top1):
    accuracy, note = own_accuracy(bare_run, row(name, 3.0), REPORTS)
    assert accuracy == top1
    assert bool(note) == (top1 is None)


def test_the_accuracy_of_a_file_that_was_there_before_does_not_count(bare_run):
    reports = {"onnx-int8": report(0.5, 0.6) | {"file_hash": "aaaa"}}
    assert own_accuracy(bare_run, row("onnxruntime int8", 3.0, file_hash="aaaa"), reports)[0] == 0.5
    assert own_accuracy(bare_run, row("onnxruntime int8", 3.0), reports)[0] == 0.5  # an old row that does not tell
    accuracy, note = own_accuracy(bare_run, row("onnxruntime int8", 3.0, file_hash="bbbb"), reports)
    assert accuracy is None
    assert "of another file" in note


def test_contended_single_threads_are_compared_by_processor_time(full_run):
    busy = row("onnxruntime int8", 9.0, contended=True)
    append_results(full_run.bench_rows, [busy, row("onnxruntime float", 8.0, contended=True, threads=2)])
    entries = {entry.name: entry for entry in read_file_results([full_run])}
    one = entries["signs/onnxruntime int8"]
    assert one.uses_processor_time
    assert one.latency_ms == busy.cpu_ms_median
    assert not entries["signs/onnxruntime float, 2 threads"].uses_processor_time


def test_devices_are_chosen_by_a_part_of_their_name(full_run):
    append_results(full_run.bench_rows, [row("onnxruntime-web int8", 30.0, device="Pixel 8, Chrome 156")])
    assert {e.device for e in read_file_results([full_run])} == {"this machine", "Pixel 8, Chrome 156"}
    assert {e.device for e in read_file_results([full_run], device="pixel")} == {"Pixel 8, Chrome 156"}
    assert {e.device for e in read_file_results([full_run], device="this machine")} == {"this machine"}
    assert {e.device for e in read_file_results([full_run], device="quiet processor")} == {"this machine"}
    with pytest.raises(
        RunError, match="nothing was measured on 'iphone'; there are measurements on this machine, Pixel"
    ):
        read_file_results([full_run], device="iphone")


def test_nothing_measured(bare_run):
    with pytest.raises(RunError, match="measure with: vitrail bench"):
        read_file_results([bare_run])


def test_a_run_without_an_evaluation_has_entries_without_accuracy(full_run):
    full_run.evaluation.unlink()
    entries = read_file_results([full_run])
    assert entries
    assert all(e.accuracy is None and "evaluate" in e.note for e in entries)
    assert json.loads(full_run.description.read_text())["model"]["name"] == entries[0].model


def test_other_tasks_are_judged_by_their_own_score(full_run, tmp_path):
    other = Run(tmp_path / "streets")
    other.update(**read_json(full_run.description) | {"task": "segmentation"})
    write_json(other.evaluation, {"reports": {"onnx-int8": {"miou": 0.61}}})
    append_results(other.bench_rows, [row("onnxruntime int8", 9.0)])
    (entry,) = read_file_results([other])
    assert (entry.accuracy, entry.quality, entry.score.title) == (0.61, 61.0, "mIoU")
    with pytest.raises(RunError, match=r"judged by different scores \(top-1, mIoU\)"):
        read_file_results([full_run, other])
