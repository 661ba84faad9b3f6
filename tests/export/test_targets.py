"""The formats beside ONNX: what the files compute, what they say of themselves, and what is left when they fail."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from export.installed import where_installed
from torch import Tensor, nn

from vitrail.core.errors import ExportError, MissingDependencyError, VitrailError
from vitrail.core.types import Preprocessing
from vitrail.export import export_model, export_source, onnx_file
from vitrail.export.convert import to_onnx
from vitrail.export.failure import explain
from vitrail.export.one_image import one_image_program
from vitrail.export.rule import rule_of
from vitrail.export.source import Source
from vitrail.export.targets import TARGETS
from vitrail.models import create_model
from vitrail.quantization import quantize
from vitrail.runs.run import Run
from vitrail.runtimes import FORMATS, RUNTIMES
from vitrail.runtimes.alike import compare
from vitrail.runtimes.openvino_core import openvino_core

ABOUT: dict[str, Any] = {
    "preprocessing": Preprocessing(image_size=(16, 16)),
    "classes": ["Löwe", *(f"class {i}" for i in range(1, 10))],
}
TASK = {"name": "classification", "frame": "crop"}
FACTS = {
    "preprocessing": ABOUT["preprocessing"].to_dict(),
    "classes": ABOUT["classes"],
    "task": TASK,
    "rule": rule_of(TASK),
}

# Converters and compilers of others warn of their own affairs.
pytestmark = pytest.mark.filterwarnings("ignore")


def outputs(model: nn.Module, images: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return model(images).numpy()


def run_openvino(path: Path, images: Tensor) -> np.ndarray:

    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled(images.numpy())[0])


def run_torch_export(path: Path, images: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return torch.export.load(path).module()(images).numpy()


def run_aoti(path: Path, images: Tensor) -> np.ndarray:
    return torch._inductor.aoti_load_package(str(path))(images).detach().numpy()


def run_executorch(path: Path, images: Tensor) -> np.ndarray:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    return np.concatenate([method.execute([image])[0].numpy().copy() for image in images.split(1)])


def run_litert(path: Path, images: Tensor) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    answers = []
    for image in images.split(1):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.numpy())
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(answers)


def facts_of_openvino(path: Path) -> dict[str, Any]:

    info = openvino_core().read_model(path).get_rt_info(["vitrail"])
    return {name: json.loads(info[name].value if hasattr(info[name], "value") else info[name]) for name in FACTS}


def facts_of_torch_export(path: Path) -> dict[str, Any]:
    inside = {"vitrail.json": ""}
    torch.export.load(path, extra_files=inside)
    return json.loads(inside["vitrail.json"])


def facts_of_aoti(path: Path) -> dict[str, Any]:
    metadata = torch._inductor.aoti_load_package(str(path)).get_metadata()
    return {name: json.loads(metadata[f"vitrail.{name}"]) for name in FACTS}


def facts_of_executorch(path: Path) -> dict[str, Any]:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    return json.loads(program.load_method("vitrail").execute([])[0])


def facts_of_litert(path: Path) -> dict[str, Any]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    named = {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    return {name: json.loads(named[f"vitrail.{name}"]) for name in FACTS}


CASES = [
    where_installed("openvino", run_openvino, facts_of_openvino, True),
    where_installed("torch-export", run_torch_export, facts_of_torch_export, True),
    where_installed("aoti", run_aoti, facts_of_aoti, True, slow=True),
    where_installed("executorch", run_executorch, facts_of_executorch, False),
    where_installed("litert", run_litert, facts_of_litert, False),
]


@pytest.mark.parametrize(("format", "run", "facts", "any_batch"), CASES)
def test_a_file_agrees_and_describes_itself(
    format: str,
    run: Any,
    facts: Any,
    any_batch: bool,
    vit: nn.Module,
    images: Tensor,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = Run(tmp_path).exported(format)
    record = export_model(vit.train(), path, format=format, images=images[:6], **ABOUT)
    assert vit.training
    vit.eval()
    assert capfd.readouterr() == ("", "")
    for count in (1, 5):
        assert compare(run(path, images[:count]), outputs(vit, images[:count])).max_relative_error < 1e-5
    assert facts(path) == json.loads(json.dumps(FACTS))
    beside = json.loads(path.with_name(path.name + ".json").read_text())
    assert beside == json.loads(json.dumps(FACTS | {"record": record.to_dict()}))
    assert (record.format, record.path, record.verified, record.num_images) == (format, path, True, 6)
    assert (record.max_relative_error or 1) < 1e-5
    assert record.top1_agreement == 1
    assert (record.dynamic_batch, record.batch_size) == ((True, None) if any_batch else (False, 1))
    files = [file for file in tmp_path.iterdir() if not file.name.endswith(".json")]
    assert {file.stem.split(".")[0] for file in files} == {"model"}
    assert record.size_bytes == sum(file.stat().st_size for file in files)
    if format != "aoti":  # whose library names the headers that it was compiled with, see its docstring
        assert not [file.name for file in files if _tells_folders(file)]


def _tells_folders(file: Path) -> bool:
    data = [file.read_bytes()]
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            data += [archive.read(name) for name in archive.namelist()]
    return any(b"site-packages" in part or str(Path(__file__).parents[2]).encode() in part for part in data)


def test_two_formats_of_a_source_share_one_conversion(
    vit: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = []
    monkeypatch.setattr(onnx_file, "to_onnx", lambda *given: converted.append(given) or to_onnx(*given))
    source = Source(model=vit, images=images[:2])
    for format in ("onnx", "openvino"):
        export_source(source, tmp_path / f"model{FORMATS[format].suffix}", format=format)
    assert len(converted) == 1
    export_source(replace(source), tmp_path / "again.onnx")
    assert len(converted) == 2
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_a_quantised_model_goes_to_openvino_too(vit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    quantized = quantize(vit, images)
    path = tmp_path / "model.int8.xml"
    record = export_model(vit, path, format="openvino", images=images, variant="int8", quantized=quantized, **ABOUT)
    assert record.variant == "int8"
    agreement = compare(run_openvino(path, images[:5]), outputs(quantized, images[:5]))
    assert agreement.max_relative_error < 0.1
    assert agreement.max_relative_error > 0  # other kernels: it is not the simulation itself that was run
    assert path.with_suffix(".bin").stat().st_size < sum(p.numel() for p in vit.parameters()) * 2


def test_core_ml_is_converted_and_not_called_verified(vit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    coremltools = pytest.importorskip("coremltools", reason="optional, not installed: coremltools")
    if sys.platform == "darwin":
        pytest.skip("a Mac verifies it")
    path = tmp_path / "model.mlpackage"
    for _ in range(2):  # a folder is replaced as a file would be
        record = export_model(vit, path, format="coreml", images=images, **ABOUT)
    assert (record.verified, record.runtime, record.max_relative_error, record.num_images) == (False, None, None, 0)
    specification = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
    assert (
        dict(specification.description.metadata.userDefined).items()
        >= Source(model=vit, images=images, facts=FACTS).metadata.items()
    )
    assert [item.name for item in specification.description.input] == ["image"]
    assert [item.name for item in specification.description.output] == ["logits"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["model.mlpackage", "model.mlpackage.json"]


@pytest.mark.parametrize("format", ["openvino", "torch-export"])
def test_disagreement_leaves_the_older_file_and_nothing_else(
    format: str, vit: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    path = Run(tmp_path).exported(format)
    path.write_text("older")
    with pytest.raises(ExportError, match="disagrees with the PyTorch model"):
        export_model(vit, path, format=format, images=images, tolerance=-1.0, **ABOUT)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "older")]


@pytest.mark.parametrize(
    ("format", "module", "command"),
    [
        ("executorch", "executorch.exir", "pip install 'vitrail[executorch]'"),
        ("litert", "litert_torch", "pip install 'vitrail[litert]' && pip install --no-deps litert-torch=="),
        ("coreml", "coremltools", "pip install 'vitrail[coreml]'"),
    ],
)
def test_a_missing_extra_is_one_line_with_the_command(
    format: str,
    module: str,
    command: str,
    vit: nn.Module,
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError) as caught:
        export_model(vit, Run(tmp_path).exported(format), format=format, images=images, **ABOUT)
    assert command in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_format_is_written_by_a_target() -> None:
    assert list(TARGETS) == list(FORMATS)
    for name, target in TARGETS.items():
        assert bool(target.needs) == bool(target.package) == bool(RUNTIMES[FORMATS[name].runtime].extra)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onxx"}, "unknown format 'onxx'; did you mean onnx"),
        ({"format": "openvino", "dynamic_size": True}, "'openvino' keeps one image size; choose onnx"),
        (
            {"format": "torch-export", "quantized": True},
            "'torch-export' takes no quantised model; choose onnx or openv",
        ),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    options: dict[str, Any], message: str, vit: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    if "quantized" in options:
        options |= {"quantized": quantize(vit, images)}
    with pytest.raises(VitrailError, match=message):
        export_model(vit, tmp_path / "model", images=images, **options, **ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_the_record_has_the_hash_of_the_weights(vit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for given, kept in (({}, ""), ({"weights_hash": "0123"}, "0123")):
        assert export_model(vit, path, images=images, **given, **ABOUT).weights_hash == kept
        assert json.loads(Path(f"{path}.json").read_text())["record"]["weights_hash"] == kept


@pytest.mark.usefixtures("no_shape_checks")
def test_any_size_is_claimed_after_a_second_size_was_run(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("poolformer_nano", num_classes=10, image_size=32).eval()
    photos = torch.randn(4, 3, 32, 32)
    record = export_model(model, tmp_path / "model.onnx", images=photos, dynamic_size=True, **ABOUT)
    assert record.dynamic_size
    session = onnxruntime.InferenceSession(record.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    step = model.size_divisor
    for size in ((32, 32), (32 + 3 * step, 32 + step)):
        x = torch.randn(2, 3, *size)
        assert compare(session.run(None, {"image": x.numpy()})[0], outputs(model, x)).max_relative_error < 1e-4


def test_a_file_that_fails_at_the_second_size_is_not_written(tmp_path: Path) -> None:
    class Squarish(nn.Module):
        """Right at 32 pixels alone, whatever its graph says."""

        size_divisor = 8

        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean((2, 3))
            return mean if torch.compiler.is_exporting() else mean * x.shape[2] / 32

    with pytest.raises(ExportError, match="disagrees with the PyTorch model"):
        about = ABOUT | {"classes": ["red", "green", "blue"]}
        export_model(Squarish(), tmp_path / "m.onnx", images=torch.randn(2, 3, 32, 32), dynamic_size=True, **about)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_one_size_says_why(vit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"ViT is tied to its image size: .*position"):
        export_model(vit, tmp_path / "model.onnx", images=images, dynamic_size=True, **ABOUT)
    with pytest.raises(ExportError, match="keeps the image size of its calibration"):
        quantized = quantize(vit, images)
        export_model(vit, tmp_path / "m.onnx", images=images, quantized=quantized, dynamic_size=True, **ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_what_depends_on_weights_alone_is_computed_once() -> None:
    model = create_model("maxvit_nano", num_classes=10)
    images = torch.randn(2, 3, *model.config.image_size)
    plain = torch.export.export(model.eval(), (images[:1],))
    folded = one_image_program(model, images)

    def kinds(program: torch.export.ExportedProgram) -> set[str]:
        return {str(node.target) for node in program.graph.nodes}

    assert "aten.unfold.default" in kinds(plain)  # the relative positions, spread over all pairs
    assert "aten.unfold.default" not in kinds(folded)
    torch.testing.assert_close(folded.module()(images[:1]), model(images[:1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("message", "operation"),
    [
        ("Unsupported fx node unfold, kind unfold", "unfold"),
        ("Lowering not found: aten.special_bessel_j0.default", "aten.special_bessel_j0.default"),
        ("error: 'tfl.pad' op failed to verify that operand 0 is at most 5-D", "tfl.pad"),
    ],
)
def test_the_operation_at_fault_is_named(message: str, operation: str) -> None:
    try:
        try:
            raise NotImplementedError(message)
        except NotImplementedError as cause:
            raise RuntimeError("conversion failed\nsee above") from cause
    except RuntimeError as failure:
        told = explain(failure, "LiteRT")
    assert told.startswith(f"operation {operation} has no LiteRT counterpart; replace it")
    where = "Exception from src/core.cpp:132:\nCheck 'a == b' failed\nshapes 84 and 1 differ\n\n"
    assert "to OpenVINO: shapes 84 and 1 differ (nothing" in explain(RuntimeError(where), "OpenVINO")
    assert explain(ValueError("too large\nindeed"), "LiteRT").startswith(
        "the model cannot be exported to LiteRT: too large (nothing"
    )


def test_a_limit_of_the_format_is_told_with_the_operation() -> None:
    message = (
        'Core ML only supports tensors with rank <= 5. Layer "view_12", with type "reshape", outputs a rank 6 tensor. '
    )
    assert explain(ValueError(message), "Core ML") == (
        "operation reshape outputs a rank 6 tensor, and Core ML only supports tensors with rank <= 5; rewrite it in "
        "the model, or take another format (nothing was written)"
    )
