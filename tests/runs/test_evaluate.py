from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from vitrail.core.errors import BenchError
from vitrail.core.files import file_hash, write_json
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, DataSplits, load_data
from vitrail.report import write_report
from vitrail.runs import evaluate
from vitrail.runs.evaluate import evaluate_run
from vitrail.runs.examples import picture, round_robin
from vitrail.runs.run import Run
from vitrail.runtimes import Session
from vitrail.tasks import ClassificationTask
from vitrail.training import TrainConfig


def test_samples_take_classes_round_robin():
    assert round_robin(torch.tensor([0, 0, 0, 2, 1, 2]), 5) == [0, 4, 3, 1, 5]


def test_pictures_are_small_jpegs_in_the_right_colours():
    red = torch.zeros(3, 300, 150, dtype=torch.uint8)
    red[0] = 255
    image = Image.open(io.BytesIO(base64.b64decode(picture(red))))
    assert (image.format, image.size) == ("JPEG", (56, 112))
    assert image.getpixel((20, 20))[0] > 240
    assert max(image.getpixel((20, 20))[1:]) < 20


@pytest.fixture(scope="module")
def splits() -> DataSplits:
    data = load_data(DataConfig())
    return DataSplits(
        classes=data.classes,
        train=data.train.sample(20, 0),
        val=data.val.sample(10, 0),
        test=data.test.sample(30, 0),
        fingerprint="f",
        skipped=(),
        source="sample",
    )


class MeanColour(nn.Module):
    """A classifier that looks at the mean colour alone; untrained, so often wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(3, 10, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return images.mean((2, 3)) @ self.weight

    agreement = ClassificationTask.agreement
    confidence_search = ClassificationTask.confidence_search
    findings = ClassificationTask.findings
    classes = tuple("0123456789")
    scores, per_image = ClassificationTask.scores, True


def write_onnx(path: Path, weight: np.ndarray) -> None:
    """The same as a file."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("MatMul", ["features", "weight"], ["logits"]),
        ],
        "mean_colour",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.fixture
def run(tmp_path, splits, monkeypatch) -> Run:
    run = Run(tmp_path / "run")
    run.update(
        model={"name": "mean_colour", "fields": {}},
        task="classification",
        classes=list(splits.classes),
        preprocessing=Preprocessing(image_size=(48, 48), crop_fraction=1.0).to_dict(),
        data={"path": "sample", "fingerprint": "f"},
        training=TrainConfig().to_dict(),
        status="trained",
    )
    run.weights.write_bytes(b"weights")
    model = MeanColour()
    monkeypatch.setattr(evaluate, "load_task", lambda _run: model)
    write_onnx(run.onnx("float"), model.weight.numpy())
    write_onnx(run.onnx("int8"), -model.weight.numpy())  # upside down, so that it agrees nowhere
    return run


def test_every_file_of_a_run_is_evaluated_on_the_held_out_images(run, splits):
    values = evaluate_run(run, data=splits, batch_size=16, num_examples=3, num_samples=12)
    assert json.loads(run.evaluation.read_text()) == json.loads(json.dumps(values))
    assert values["split"] == "test"
    reports = values["reports"]
    assert list(reports) == ["torch-float", "onnx-float", "onnx-int8", "openvino-float", "openvino-int8"]
    assert all(report["num_images"] == 30 for report in reports.values())
    assert reports["onnx-float"]["top1"] == reports["torch-float"]["top1"]
    assert reports["onnx-float"]["loss"] == pytest.approx(reports["torch-float"]["loss"], rel=1e-4)
    assert [report["agreement"] for report in reports.values()] == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert reports["onnx-int8"]["loss"] != pytest.approx(reports["torch-float"]["loss"], rel=1e-3)

    wrong = [example for example in values["examples"] if example["label"] != example["predicted"]]
    assert len(wrong) == 3
    assert [e["probability"] for e in wrong] == sorted((e["probability"] for e in wrong), reverse=True)
    assert all(e["name"].split("/")[0] == e["label"] for e in values["examples"])  # labels belong to their pictures

    assert {part: sum(counts) for part, counts in values["data"]["counts"].items()} == {
        "train": 20,
        "val": 10,
        "test": 30,
    }
    assert len(values["data"]["samples"]) == 12
    assert len({sample["label"] for sample in values["data"]["samples"]}) == len(set(splits.train.labels.tolist()))
    assert "data:image/jpeg;base64," in write_report(run).read_text(encoding="utf-8")


def test_files_for_one_image_at_a_time_are_evaluated_as_themselves(run, splits, monkeypatch):
    """The pretended program is upside down, so that nobody can take another file's accuracy for its own."""
    run.exported("executorch").write_bytes(b"program")
    run.exported("litert").write_bytes(b"cannot be run here")
    weight = -MeanColour().weight.numpy()
    really_open = evaluate.open_session

    def open_session(source, runtime, threads):
        if runtime != "executorch":
            return really_open(source, runtime, threads)

        def answer(images):
            assert len(images) == 1
            return (images.mean((2, 3)) @ weight).astype(np.float32)

        return Session(runtime=runtime, version="1", threads=threads, run=answer)

    def import_runtime(runtime):
        if runtime == "litert":
            raise BenchError("runtime litert cannot be used here")

    monkeypatch.setattr(evaluate, "open_session", open_session)
    monkeypatch.setattr(evaluate, "import_runtime", import_runtime)
    reports = evaluate_run(run, data=splits, batch_size=16)["reports"]
    assert list(reports)[-2:] == ["openvino-int8", "executorch-float"]
    assert reports["executorch-float"]["num_images"] == 30
    assert reports["executorch-float"]["agreement"] == 0.0
    assert reports["executorch-float"]["file_hash"] == file_hash(run.exported("executorch"))


def test_a_file_of_other_weights_is_named_and_left_out(run, splits):
    """As an exported file that lay in the folder before the model was trained anew."""
    write_json(run.onnx("int8").with_name("model.int8.onnx.json"), {"record": {"weights_hash": "0123456789abcdef"}})
    values = evaluate_run(run, data=splits, batch_size=16)
    assert list(values["reports"]) == ["torch-float", "onnx-float", "openvino-float"]
    assert values["stale"].keys() == {"onnx-int8", "openvino-int8"}
    assert "made from other weights; make it again with: vitrail export" in values["stale"]["onnx-int8"]
    assert values["stale"]["onnx-int8"] in write_report(run).read_text(encoding="utf-8")


def test_a_file_that_was_wrong_in_one_runtime_is_named_and_left_out_there_alone(run, splits):
    checks = [
        {"name": "onnxruntime", "runtime": "ONNX Runtime 1.31", "failure": ""},
        {"name": "openvino", "runtime": "OpenVINO 2026.4", "failure": "the exported model disagrees"},
    ]
    write_json(run.onnx("int8").with_name("model.int8.onnx.json"), {"record": {"checks": checks}})
    values = evaluate_run(run, data=splits, batch_size=16)
    assert list(values["reports"]) == ["torch-float", "onnx-float", "onnx-int8", "openvino-float"]
    assert values["stale"] == {
        "openvino-int8": "model.int8.onnx is not right in OpenVINO 2026.4: the exported model disagrees"
    }
