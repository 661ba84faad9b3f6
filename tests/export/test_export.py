"""Exported files: what is in them, that runtimes agree with the model, and that failures leave nothing behind."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.core.types import Preprocessing
from vitrail.export import ExportRecord, export_model, verified
from vitrail.quantization import QuantizationConfig, QuantizedModel, quantize
from vitrail.runtimes.alike import compare
from vitrail.runtimes.openvino_core import openvino_core
from vitrail.runtimes.session import Session

ABOUT: dict[str, Any] = {
    "preprocessing": Preprocessing(image_size=(16, 16)),
    "classes": [f"class {i}" for i in range(10)],
}


def run(path: Path, images: Tensor, optimised: Path | None = None) -> np.ndarray:
    """Outputs in ONNX Runtime; the graph that it really runs goes to ``optimised``."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": images.numpy()})[0])


def outputs(model: nn.Module, images: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return model(images).numpy()


@pytest.fixture(scope="module")
def float_record(vit: nn.Module, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> ExportRecord:
    return export_model(vit, tmp_path_factory.mktemp("float") / "model.onnx", images=images, **ABOUT)


@pytest.fixture(scope="module")
def quantized_vit(vit: nn.Module, images: Tensor) -> QuantizedModel:
    return quantize(vit, images)


@pytest.fixture(scope="module")
def vit_record(
    vit: nn.Module, quantized_vit: QuantizedModel, images: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> ExportRecord:
    path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    return export_model(vit, path, images=images, variant="int8", quantized=quantized_vit, **ABOUT)


@pytest.fixture(scope="module")
def quantized_edgevit(edgevit: nn.Module, images: Tensor) -> QuantizedModel:
    return quantize(edgevit, images)


@pytest.fixture(scope="module")
def edgevit_record(
    edgevit: nn.Module, quantized_edgevit: QuantizedModel, images: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> ExportRecord:
    path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    return export_model(edgevit, path, images=images, variant="int8", quantized=quantized_edgevit, **ABOUT)


def test_float_file_agrees_at_any_batch_size(vit: nn.Module, float_record: ExportRecord, images: Tensor) -> None:
    assert float_record.max_relative_error < 1e-5
    assert float_record.top1_agreement == 1
    assert float_record.dynamic_batch
    for count in (1, 3, 24):
        agreement = compare(run(float_record.path, images[:count]), outputs(vit, images[:count]))
        assert agreement.max_relative_error < 1e-5


def test_file_describes_itself_inside_and_beside(float_record: ExportRecord) -> None:
    model = onnx.load(float_record.path)
    inside = {item.key: json.loads(item.value) for item in model.metadata_props}
    beside = json.loads(Path(f"{float_record.path}.json").read_text())
    assert inside["vitrail.classes"] == beside["classes"] == ABOUT["classes"]
    assert Preprocessing.from_dict(inside["vitrail.preprocessing"]) == ABOUT["preprocessing"]
    assert Preprocessing.from_dict(beside["preprocessing"]) == ABOUT["preprocessing"]
    assert beside["record"]["num_images"] == 24
    assert beside["record"] == float_record.to_dict()
    assert float_record.size_bytes == float_record.path.stat().st_size
    assert [value.name for value in [*model.graph.input, *model.graph.output]] == ["image", "logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    onnx.checker.check_model(model, full_check=True)


def test_a_file_is_compared_in_every_runtime_that_takes_it(
    float_record: ExportRecord, vit_record: ExportRecord
) -> None:
    for record in (float_record, vit_record):
        assert [(check.name, check.failure) for check in record.checks] == [("onnxruntime", ""), ("openvino", "")]
        assert record.checks[0].max_relative_error == record.max_relative_error
        assert 0 < record.checks[1].max_relative_error < 0.1


def test_a_file_that_is_wrong_in_another_runtime_is_written_and_says_so(
    vit: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = verified.open_session

    def open_session(source: Path, runtime: str, threads: int) -> Session:
        session = really_open(source, runtime, threads)
        wrong = {"openvino": lambda x: 0.5 * session.run(x)}
        return replace(session, run=wrong.get(runtime, session.run))

    monkeypatch.setattr(verified, "open_session", open_session)
    record = export_model(vit, tmp_path / "model.onnx", images=images, **ABOUT)
    right, wrong = record.checks
    assert (right.failure, record.verified) == ("", True)
    assert wrong.failure.startswith("the exported model disagrees with the PyTorch model: relative error 0.5 on 24")
    assert json.loads((tmp_path / "model.onnx.json").read_text())["record"]["checks"][1]["failure"] == wrong.failure


def test_file_stands_alone_and_tells_no_paths(float_record: ExportRecord) -> None:
    names = sorted(path.name for path in float_record.path.parent.iterdir())
    assert names == ["model.onnx", "model.onnx.json"]
    assert b"site-packages" not in float_record.path.read_bytes()
    assert b"stack_trace" not in float_record.path.read_bytes()


def test_vit_runs_in_integers(vit_record: ExportRecord, images: Tensor, tmp_path: Path) -> None:
    run(vit_record.path, images, tmp_path / "optimised.onnx")
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    kinds = Counter(node.op_type for node in graph.node)
    # two blocks of qkv, proj, fc1, fc2 and two attention products; the classifier
    assert kinds["MatMulIntegerToFloat"] + kinds["QLinearMatMul"] == 2 * 6 + 1
    assert kinds["MatMul"] + kinds["Gemm"] + kinds["FusedMatMul"] == 0
    assert kinds["Conv"] == 1  # the stem
    matrices = {tuple(t.dims): t.data_type for t in graph.initializer if len([d for d in t.dims if d > 1]) > 1}
    floats = ((1, 17, 32), (32, 3, 4, 4))  # positions and the stem
    assert {kind for shape, kind in matrices.items() if shape not in floats} == {onnx.TensorProto.INT8}


def test_edgevit_runs_in_integers_but_for_depthwise(
    edgevit_record: ExportRecord, images: Tensor, tmp_path: Path
) -> None:
    run(edgevit_record.path, images, tmp_path / "optimised.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["MatMulIntegerToFloat"] + kinds["QLinearMatMul"] == 2 * 6 + 1
    # the second downsampling, conv1, conv2, fc1, fc2 of the local block
    assert kinds["QLinearConv"] == 5
    # depthwise: three position convolutions (one local, two global) and the aggregation; the stem
    assert kinds["Conv"] + kinds["FusedConv"] == 4 + 1


@pytest.mark.parametrize("family", ["vit", "edgevit"])
def test_file_computes_what_the_model_simulates(family: str, images: Tensor, request: pytest.FixtureRequest) -> None:
    quantized = request.getfixturevalue(f"quantized_{family}")
    record = request.getfixturevalue(f"{family}_record")
    agreement = compare(run(record.path, images[:7]), outputs(quantized, images[:7]))
    # a value on the edge of two codes may fall on either side
    assert agreement.max_relative_error < 0.05
    assert record.max_relative_error < 0.05
    assert record.variant == "int8"


@pytest.mark.parametrize("family", ["vit", "edgevit"])
def test_openvino_agrees(family: str, images: Tensor, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("openvino")
    quantized = request.getfixturevalue(f"quantized_{family}")
    record = request.getfixturevalue(f"{family}_record")
    compiled = openvino_core().compile_model(str(record.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    agreement = compare(compiled(images[:5].numpy())[0], outputs(quantized, images[:5]))
    assert agreement.max_relative_error < 0.1


def test_int8_file_is_smaller(float_record: ExportRecord, vit_record: ExportRecord) -> None:
    assert vit_record.size_bytes < float_record.size_bytes


def test_fewer_bits_are_clipped_in_the_file(vit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    config = QuantizationConfig(weight_bits=4, activation_bits=6, keep_float=("blocks.*",))
    quantized = quantize(vit, images, config=config)
    export_model(vit, tmp_path / "w4a6.onnx", images=images, variant="w4a6", quantized=quantized, **ABOUT)
    loud = images[:4] * 10  # far out of the calibrated range, where an unclipped file would differ
    assert compare(run(tmp_path / "w4a6.onnx", loud), outputs(quantized, loud)).max_relative_error < 0.05


def test_disagreement_leaves_the_older_file_and_nothing_else(vit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("older")
    with pytest.raises(ExportError, match=r"disagrees with the PyTorch model: relative error .* on 24 images"):
        export_model(vit, tmp_path / "model.onnx", images=images, tolerance=0.0, **ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "older"


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x.mean((2, 3)))


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)[:, :4]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Unknown(), r"operation .*bessel_j0.* has no ONNX counterpart; replace it"),
        (Fixed(), r"Fixed cannot be captured by torch.export with a free batch size"),
        (Branching(), r"Branching cannot be captured"),
    ],
)
def test_what_cannot_be_exported_is_named(
    model: nn.Module, message: str, images: Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export_model(model, tmp_path / "model.onnx", images=images, **(ABOUT | {"classes": []}))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_too_few_images_are_refused(vit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="pass at least 2 real normalised images"):
        export_model(vit, tmp_path / "model.onnx", images=images[:1], **ABOUT)


def test_export_is_silent(
    edgevit: nn.Module, images: Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_model(edgevit.train(), tmp_path / "model.onnx", images=images, **ABOUT)
    assert capfd.readouterr() == ("", "")
    assert edgevit.training
    edgevit.eval()


def test_a_nan_counts_as_disagreement() -> None:
    reference = np.ones((2, 3), np.float32)
    broken = reference.copy()
    broken[1, 1] = np.nan
    assert compare(broken, reference).max_relative_error == float("inf")
