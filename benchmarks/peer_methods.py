"""How public tools quantise a model: each with its vendor's documented settings for transformers.

Where a tool leaves a choice, the method's docstring says which was taken.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quantization_subjects import Subject
from torch import Tensor

from vitrail.export import export_model
from vitrail.runtimes.openvino_core import openvino_core

PRODUCTS = ["MatMul", "Gemm", "Conv"]
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A quantised model: how to run it, and what it weighs.

    Attributes:
        bits: e.g. "W8A8"; "W8A8/32" where a tool chose to leave layers in float.
        executed: computed by the runtime that the tool's users deploy.
        integer: by its integer kernels.
    """

    predict: Predict
    bits: str
    size_bytes: int
    executed: bool = True
    integer: bool = True


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model and one draw of calibration images, with a folder for files."""

    subject: Subject
    images: Tensor
    folder: Path

    @property
    def float_file(self) -> Path:
        """The model as float ONNX, made once."""
        path = self.folder / "float.onnx"
        if not path.exists():
            subject = self.subject
            preprocessing, classes = subject.preprocessing, subject.classes
            export_model(subject.model, path, preprocessing=preprocessing, classes=classes, images=self.images[:4])
        return path

    def batches(self, size: int = 1) -> Iterator[np.ndarray]:
        for batch in self.images.split(size):
            yield batch.numpy()


def onnxruntime_predict(path: Path) -> Predict:
    """One thread of ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def openvino_predict(model: Any) -> Predict:
    """One thread of OpenVINO on the CPU; float parts in float32."""
    import openvino

    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.compile_model(model, "CPU", hints)
    return lambda images: compiled(images)[0]


def float_model(job: Job) -> Result:
    path = job.float_file
    return Result(predict=onnxruntime_predict(path), bits="float", size_bytes=path.stat().st_size, integer=False)


def onnxruntime_static(calibration: str, operations: list[str] | None = None) -> Callable[[Job], Result]:
    """``quantize_static`` after ``quant_pre_process``: U8 activations, S8 weights per channel.

    By default it quantises all operations, residual additions and norms included, after which the ViT-Tiny answers as
    by chance; so the products alone are measured, too. "Entropy" searches 128 bins for 128 levels: its ranges are
    those of "MinMax".
    """

    def method(job: Job) -> Result:
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.batches = job.batches()

            def get_next(self) -> dict[str, np.ndarray] | None:
                batch = next(self.batches, None)
                return None if batch is None else {"image": batch}

        prepared, path = (
            job.folder / "prepared.onnx",
            job.folder / f"onnxruntime-{calibration}-{len(operations or [])}.onnx",
        )
        quant_pre_process(job.float_file, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Reader(),
            op_types_to_quantize=operations,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[calibration],
        )
        return Result(predict=onnxruntime_predict(path), bits="W8A8", size_bytes=path.stat().st_size)

    return method


def onnxruntime_dynamic(job: Job) -> Result:
    """``quantize_dynamic``: ranges of activations are found at run time, without calibration images."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    bare, path = job.folder / "bare.onnx", job.folder / "onnxruntime-dynamic.onnx"
    model = onnx.load(job.float_file)
    del model.graph.value_info[:]  # its symbolic shapes stop quantize_dynamic
    onnx.save(model, bare)
    quantize_dynamic(bare, path, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8)
    return Result(predict=onnxruntime_predict(path), bits="W8A8", size_bytes=path.stat().st_size)


def nncf_static(kind: str | None) -> Callable[[Job], Result]:
    """``nncf.quantize``, mixed preset (asymmetric activations).

    The model type "transformer" is what NNCF's documentation asks for: SmoothQuant, and patterns that stay in float.
    On the ReViT its result is wrong in OpenVINO 2026.4 (with or without SmoothQuant and bias correction), and right
    without the type; so both are measured.
    """

    def method(job: Job) -> Result:
        import nncf

        quantized = nncf.quantize(
            _openvino_model(job),
            nncf.Dataset(list(job.batches())),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType(kind) if kind else None,
            subset_size=len(job.images),
        )
        return _openvino_result(job, quantized, f"nncf-{kind}", "W8A8")

    return method


def nncf_accuracy_control(job: Job) -> Result:
    """The same; then layers go back to float until 99 % of the calibration images get the float model's class."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters

    model = _openvino_model(job)
    batches = list(job.batches())
    decisions = [int(output.argmax()) for output in map(openvino_predict(model), batches)]

    def agreement(compiled: Any, pairs: Any) -> tuple[float, list[float]]:
        same = [float(int(compiled(batch)[0].argmax()) == decision) for batch, decision in pairs]
        return float(np.mean(same)), same

    preset, kind = nncf.QuantizationPreset.MIXED, nncf.ModelType.TRANSFORMER
    quantized = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(batches),
        nncf.Dataset(list(zip(batches, decisions, strict=True))),
        agreement,
        max_drop=0.01,
        preset=preset,
        model_type=kind,
        subset_size=len(batches),
        advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(num_ranking_workers=1),
    )
    return _openvino_result(job, quantized, "nncf-accuracy", "W8A8/32")


def nncf_weights(job: Job) -> Result:
    """``nncf.compress_weights`` to four bits in groups of at most 32, without data; activations stay float.

    With ``scale_estimation`` and ``awq``, which are made for language models, the ReViT answered as by chance.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

    compressed = nncf.compress_weights(
        _openvino_model(job),
        mode=nncf.CompressWeightsMode.INT4_SYM,
        ratio=1.0,
        group_size=32,
        all_layers=True,
        advanced_parameters=AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST),
    )
    return replace(_openvino_result(job, compressed, "nncf-weights", "W4A32"), integer=False)


def _openvino_model(job: Job) -> Any:

    return openvino_core().read_model(job.float_file)


def _openvino_result(job: Job, model: Any, name: str, bits: str) -> Result:
    import openvino

    path = job.folder / f"{name}.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return Result(predict=openvino_predict(openvino_core().read_model(path)), bits=bits, size_bytes=size)


def torchao_dynamic(job: Job) -> Result:
    """``Int8DynamicActivationInt8WeightConfig``: linear layers alone, ranges at run time, PyTorch eager."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy.deepcopy(job.subject.model).eval()
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return Result(predict=_torch_predict(model), bits="W8A8", size_bytes=_state_bytes(model))


def torchao_four_bits(job: Job) -> Result:
    """``Int8DynamicActivationIntxWeightConfig`` with four bits; eager PyTorch computes it in float.

    In groups of 32, or per channel where a layer's inputs cannot be divided so.
    """
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup

    model = copy.deepcopy(job.subject.model).eval()
    widths = [module.in_features for module in model.modules() if isinstance(module, torch.nn.Linear)]
    granularity = PerAxis(0) if any(width % 32 for width in widths) else PerGroup(32)
    quantize_(model, Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=granularity))
    size = _state_bytes(model)
    return Result(predict=_torch_predict(model), bits="W4A8", size_bytes=size, executed=False, integer=False)


def pt2e(job: Job) -> Result:
    """PT2E with the X86 Inductor quantiser's default configuration, calibrated statically, compiled by Inductor."""
    from torch._inductor import config
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    # the batch size is fixed, as Inductor would compile anew for another one
    example = job.images[:16]
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    exported = torch.export.export(job.subject.model.eval(), (example,), strict=True).module()
    prepared = prepare_pt2e(exported, quantizer)
    with torch.inference_mode():
        for batch in job.images.split(len(example)):
            if len(batch) == len(example):
                prepared(batch)
    converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    config.freezing = True
    compiled = torch.compile(converted)

    def predict(images: np.ndarray) -> np.ndarray:
        rows = []
        for batch in torch.from_numpy(images).split(len(example)):
            padded = torch.cat([batch, batch[:1].expand(len(example) - len(batch), *batch.shape[1:])])
            with torch.no_grad():
                rows.append(compiled(padded).numpy()[: len(batch)])
        return np.concatenate(rows)

    return Result(predict=predict, bits="W8A8", size_bytes=_state_bytes(converted))


def _torch_predict(model: torch.nn.Module) -> Predict:
    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images)).float().numpy()

    return predict


def _state_bytes(model: torch.nn.Module) -> int:
    """Bytes of the saved state."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()


METHODS: dict[str, tuple[str | None, Callable[[Job], Result]]] = {
    "float (ONNX Runtime)": (None, float_model),
    "ONNX Runtime static, all operations": (None, onnxruntime_static("MinMax")),
    "ONNX Runtime static, min-max": (None, onnxruntime_static("MinMax", PRODUCTS)),
    "ONNX Runtime static, percentile": (None, onnxruntime_static("Percentile", PRODUCTS)),
    "ONNX Runtime static, entropy": (None, onnxruntime_static("Entropy", PRODUCTS)),
    "ONNX Runtime dynamic": (None, onnxruntime_dynamic),
    "NNCF mixed, transformer": ("nncf", nncf_static("transformer")),
    "NNCF mixed": ("nncf", nncf_static(None)),
    "NNCF mixed, transformer, accuracy control": ("nncf", nncf_accuracy_control),
    "NNCF 4-bit weights": ("nncf", nncf_weights),
    "torchao dynamic": ("torchao", torchao_dynamic),
    "torchao 4-bit weights, dynamic": ("torchao", torchao_four_bits),
    "PT2E static, Inductor": ("torchao", pt2e),
}
"""Name to the package that it needs, and what makes it."""

SEEDLESS = (
    "float (ONNX Runtime)",
    "ONNX Runtime dynamic",
    "NNCF 4-bit weights",
    "torchao dynamic",
    "torchao 4-bit weights, dynamic",
)
"""Methods that use no calibration images: one result stands for all seeds."""
