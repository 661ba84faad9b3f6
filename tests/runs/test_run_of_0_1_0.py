"""A run folder that version 0.1.0 wrote keeps its figures: it is evaluated, exported and reported as it was then."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import vitrail
from vitrail.core.files import read_json
from vitrail.runs.evaluate import evaluate_run
from vitrail.runs.export import export_run
from vitrail.runs.file_results import read_file_results
from vitrail.runs.load import load_task
from vitrail.runs.run import Run

KEPT = Path(__file__).with_name("run-0.1.0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(shutil.copytree(KEPT, tmp_path_factory.mktemp("old") / "run"))


def test_the_description_is_read_whole(run: Run) -> None:
    description = run.read()
    assert description.version == 1
    assert (description.model.name, description.model.num_params) == ("edgevit_nano_stride2", 23242)
    assert description.training.model_fields["embed_dims"] == [16, 32]
    assert (description.data.num_train, description.data.num_val, description.data.num_test) == (760, 140, 300)
    assert description.trained is not None
    assert (description.trained.keep, description.trained.epoch) == ("last", 4)
    assert load_task(run).classes == tuple("0123456789")


def test_evaluation_gives_the_same_figures(run: Run) -> None:
    before = read_json(KEPT / "evaluation.json")
    after = evaluate_run(run)
    assert after["split"] == before["split"]
    assert after["scores"][:2] == before["scores"]
    assert after["reports"].keys() == before["reports"].keys() | {"openvino-float", "openvino-int8"}
    for name, report in before["reports"].items():
        for figure in ("top1", "top5", "num_images", "agreement", "confusion", "file_hash"):
            assert after["reports"][name][figure] == report[figure]
        assert after["reports"][name]["loss"] == pytest.approx(report["loss"], rel=1e-5)
    assert [one["name"] for one in after["examples"]] == [one["name"] for one in before["examples"]]


def contents(path: Path) -> dict[str, Any]:
    """What a file computes: its operations and constants, by name."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {"operations": [node.op_type for node in graph.node], "constants": constants}


@pytest.mark.slow
def test_exported_files_are_the_same(run: Run) -> None:
    records = export_run(run, 8)
    assert [record.path.name for record in records] == ["model.onnx", "model.int8.onnx"]
    assert all(record.weights_hash == run.weights_hash for record in records)
    for record in records:
        before, after = contents(KEPT / record.path.name), contents(record.path)
        assert after["operations"] == before["operations"]
        assert after["constants"].keys() == before["constants"].keys()
        for name, value in before["constants"].items():
            np.testing.assert_array_equal(after["constants"][name], value)


def test_measurements_keep_their_accuracies(run: Run) -> None:
    found = {one.result.name: one.accuracy for one in read_file_results([Run(KEPT)])}
    reports = read_json(KEPT / "evaluation.json")["reports"]
    assert found == {
        "onnxruntime float": reports["onnx-float"]["top1"],
        "onnxruntime int8": reports["onnx-int8"]["top1"],
        "torch float": reports["torch-float"]["top1"],
    }


def test_the_report_and_the_python_face_show_it(run: Run) -> None:
    shown = vitrail.open_run(run.folder)
    assert "15.0 %" in repr(shown)
    assert "edgevit_nano_stride2" in shown._repr_html_()
    html = shown.report().read_text(encoding="utf-8")
    assert all(words in html for words in ("edgevit_nano_stride2", "model.int8.onnx", "15.0 %"))


def test_entries_of_other_versions_are_kept_and_read_as_they_are_called_now(tmp_path: Path) -> None:
    run = Run(shutil.copytree(KEPT, tmp_path / "run"))
    values = read_json(run.description)
    values["training"]["options"] = {"opponent_width": 0.5}
    values["training"]["speed_of_light"] = values["data"]["colour"] = values["later"] = 3
    run.description.write_text(json.dumps(values | {"version": 2}))
    training = run.read().training
    assert training.options == {"discriminator_width": 0.5}
    assert replace(training, options={}) == Run(KEPT).read().training
    run.update(seed=1)
    kept = read_json(run.description)
    assert (kept["later"], kept["training"]["speed_of_light"], kept["version"]) == (3, 3, 2)
