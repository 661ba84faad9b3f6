"""What runtimes make of a quantised file: which operations compute with integers, and whether they compute the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor, nn

from vitrail.core.types import Preprocessing
from vitrail.export import export_model
from vitrail.models import create_model
from vitrail.quantization import QuantizationConfig, QuantizedModel, observe_channels, observe_tensor, quantize
from vitrail.quantization.plan import Smoothing
from vitrail.runtimes import FORMATS, open_session, takers
from vitrail.runtimes.openvino_core import openvino_core

KEEP_FLOAT = ("depthwise", "conv_transpose")
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_nano_patch4", {"depth": 2, "embed_dim": 32, "num_heads": 2, "image_size": 16}),
    "edgevit": (
        "edgevit_nano_stride2",
        {"image_size": 16, "embed_dims": (24, 48), "depths": (1, 1), "sr_ratios": (2, 1), "strides": (2, 2)},
    ),
    "mobilevit": ("mobilevit_nano", {"depths": (1, 1, 1, 1, 1), "transformer_depths": (1, 1, 1)}),
    "maxvit": ("maxvit_nano", {"depths": (1,), "embed_dims": (32,)}),
    "poolformer": ("poolformer_nano", {"depths": (1, 1, 1, 1)}),
}
WIDTHS: dict[str, tuple[int, ...]] = {"8": (8,), "4": (4,), "mixed": (8, 4, 6, 5, 3, 7, 2)}
QUICK = [("vit", "mixed")]
THOROUGH = [(family, widths) for family in SMALL for widths in WIDTHS if (family, widths) not in QUICK]


@dataclass(frozen=True, kw_only=True)
class Case:
    model: nn.Module
    quantized: QuantizedModel
    images: Tensor
    path: Path

    @property
    def weights(self) -> set[tuple[int, ...]]:
        """Shapes of all quantised weights."""
        return {shape(t.shape) for name, t in self.quantized.state_dict().items() if name.endswith("_codes")}


def shape(dims: Any) -> tuple[int, ...]:
    """Comparable whatever a runtime did to the layout."""
    return tuple(sorted(d for d in dims if d > 1))


def narrowed(quantized: QuantizedModel, model: nn.Module, images: Tensor, widths: tuple[int, ...]) -> QuantizedModel:
    """The same plan with weights of other widths, one after the other."""
    operands, count = dict(quantized.plan.operands), 0
    for name, quantizer in operands.items():
        if quantizer.axis is not None:
            bits = widths[count % len(widths)]
            count += 1
            scale = (quantizer.scale.double() * 127 / (2 ** (bits - 1) - 1)).float()
            operands[name] = replace(quantizer, bit_width=bits, scale=scale)
    return quantize(model, images, plan=replace(quantized.plan, operands=operands))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Case]:
    made: dict[tuple[str, str], Case] = {}

    def make(family: str, widths: str) -> Case:
        if (family, widths) not in made:
            name, fields = SMALL[family]
            model = excited(create_model(name, num_classes=10, **fields))
            size = model.config.image_size
            images = torch.randn(16, 3, *size, generator=torch.Generator().manual_seed(1))
            eight = quantize(model, images, config=QuantizationConfig(preset="min_max", keep_float=KEEP_FLOAT))
            quantized = narrowed(eight, model, images, WIDTHS[widths])
            path = tmp_path_factory.mktemp(family) / "model.int8.onnx"
            about: dict[str, Any] = {"preprocessing": Preprocessing(image_size=size), "classes": ["a"] * 10}
            export_model(model, path, images=images, quantized=quantized, **about)
            made[family, widths] = Case(model=model, quantized=quantized, images=images, path=path)
        return made[family, widths]

    return make


def excited(model: Any) -> Any:
    """Weights that keep the size of activations; fresh ones of some papers let hardly anything through."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5
    return model.eval()


def onnx_runtime(path: Path, images: Tensor, optimised: Path) -> tuple[np.ndarray, onnx.GraphProto]:
    """Outputs, and the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images.numpy()})[0]), onnx.load(optimised).graph


def open_vino(path: Path) -> openvino.CompiledModel:
    return openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def decibels(reference: np.ndarray, output: np.ndarray) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - output).sum()))


def products(path: Path) -> Counter[str]:
    """What the file asks for: convolutions and matrix products, by whether they multiply codes and by a weight."""
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name for tensor in graph.initializer} | {n for n, m in makers.items() if m.op_type == "Cast"}
    found: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            maker = makers.get(node.input[1])
            codes = maker is not None and maker.op_type == "DequantizeLinear"
            weighted = codes and maker.input[0] in weights
            attention = makers.get(node.input[1]) is not None and not weighted and node.op_type == "MatMul"
            found["attention" if attention else f"{'integer' if codes else 'float'} {node.op_type}"] += 1
    return found


def check_onnx_runtime(case: Case, optimised: Path) -> None:
    asked = products(case.path)
    output, graph = onnx_runtime(case.path, case.images, optimised)
    ran = Counter(node.op_type for node in graph.node)
    assert ran["QLinearConv"] == asked["integer Conv"]
    assert ran["Conv"] + ran["FusedConv"] == asked["float Conv"]
    assert ran["MatMulIntegerToFloat"] + ran["QLinearMatMul"] == asked["integer MatMul"] + asked["attention"]
    assert ran["MatMul"] + ran["Gemm"] + ran["FusedMatMul"] + asked["integer Gemm"] + asked["float MatMul"] == 0
    floats = {shape(t.dims) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    assert not floats & case.weights
    check_output(case, output)


def check_openvino(case: Case) -> None:
    asked = products(case.path)
    compiled = open_vino(case.path)
    ran: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        about = operation.get_rt_info()
        kind, precision = about["layerType"].astype(str), about["runtimePrecision"].astype(str)
        ran[f"{kind} {'integer' if precision in ('i8', 'u8') else precision}"] += 1
        if kind == "Const" and precision == "f32":
            assert shape(operation.output(0).get_shape()) not in case.weights
    assert ran["Convolution integer"] == asked["integer Conv"]
    assert ran["Convolution f32"] == asked["float Conv"]
    assert ran["FullyConnected integer"] == asked["integer MatMul"]
    assert ran["FullyConnected f32"] + ran["MatMul f32"] == 0
    # both products of an attention and the softmax between them are one kernel
    assert 2 * ran["Subgraph integer"] + ran["MatMul integer"] == asked["attention"]
    check_output(case, np.asarray(compiled(case.images.numpy())[0]), rounds_less=True)


def check_output(case: Case, output: np.ndarray, *, rounds_less: bool = False) -> None:
    """A runtime differs from the simulation less than half as much as the simulation from the float model.

    Both differ only where the order of float additions moves a value across the edge of two codes. OpenVINO may also
    leave out a rounding between two of its kernels (it does in MobileViT): then it must be as close to the float model.
    """
    with torch.inference_mode():
        reference, simulated = case.model(case.images).numpy(), case.quantized(case.images).numpy()
    lost, apart = decibels(reference, simulated), decibels(simulated, output)
    assert apart > max(lost + 6, 20) or (rounds_less and decibels(reference, output) > lost - 1)


@pytest.mark.parametrize(("family", "widths"), QUICK)
def test_onnx_runtime_multiplies_integers(
    family: str, widths: str, case: Callable[[str, str], Case], tmp_path: Path
) -> None:
    check_onnx_runtime(case(family, widths), tmp_path / "optimised.onnx")


@pytest.mark.parametrize(("family", "widths"), QUICK)
def test_openvino_multiplies_integers(family: str, widths: str, case: Callable[[str, str], Case]) -> None:
    check_openvino(case(family, widths))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "widths"), THOROUGH)
def test_both_runtimes_multiply_integers(
    family: str, widths: str, case: Callable[[str, str], Case], tmp_path: Path
) -> None:
    check_onnx_runtime(case(family, widths), tmp_path / "optimised.onnx")
    check_openvino(case(family, widths))


def test_signed_right_factors_stay_signed_in_onnx_runtime(case: Callable[[str, str], Case], tmp_path: Path) -> None:
    """Its kernel for two unsigned factors takes twice as long."""
    vit = case("vit", "mixed")
    graph = onnx_runtime(vit.path, vit.images, tmp_path / "optimised.onnx")[1]
    makers = {name: node for node in graph.node for name in node.output}
    keys = [n for n in graph.node if n.op_type == "MatMulIntegerToFloat" and n.input[1] in makers]
    assert len(keys) == 2
    for node in keys:
        source = makers[node.input[1]]
        while source.op_type != "QuantizeLinear":
            source = makers[source.input[0]]
        assert len(source.input) == 2
        assert next(a.i for a in source.attribute if a.name == "output_dtype") == onnx.TensorProto.INT8


class OneLayer(nn.Module):
    """One product alone: nothing amplifies a difference."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2) if isinstance(self.layer, nn.Linear) else x)


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_one_linear_layer_is_the_same_to_the_last_bits(bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = OneLayer(nn.Linear(64, 24)).eval(), torch.randn(8, 3, 8, 8)
    quantized = quantize(model, images, config=QuantizationConfig(preset="min_max", weight_bits=bits, keep_float=()))
    about: dict[str, Any] = {"preprocessing": Preprocessing(image_size=(8, 8)), "classes": ["a"] * 24}
    export_model(model, tmp_path / "model.onnx", images=images, quantized=quantized, tolerance=1e-6, **about)
    with torch.inference_mode():
        simulated = quantized(images).numpy()
    output = np.asarray(open_vino(tmp_path / "model.onnx")(images.numpy())[0])
    assert np.abs(output - simulated).max() < 1e-5 * np.abs(simulated).max()


def test_one_convolution_is_the_same_but_for_ties(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = OneLayer(nn.Conv2d(3, 16, 3, padding=1)).eval(), torch.randn(8, 3, 8, 8)
    quantized = quantize(model, images, config=QuantizationConfig(preset="min_max", keep_float=()))
    step = quantized.plan.operands["layer:output"].scale.item()
    about: dict[str, Any] = {"preprocessing": Preprocessing(image_size=(8, 8)), "classes": ["a"] * 16}
    export_model(model, tmp_path / "model.onnx", images=images, quantized=quantized, **about)
    with torch.inference_mode():
        simulated = quantized(images).numpy()
    runtime = onnx_runtime(tmp_path / "model.onnx", images, tmp_path / "optimised.onnx")[0]
    for output in (runtime, np.asarray(open_vino(tmp_path / "model.onnx")(images.numpy())[0])):
        difference = np.abs(output - simulated)
        assert difference.max() < 1.01 * step
        assert (difference > 0.01 * step).mean() < 0.002


class _TokensOfTwoMaps(nn.Module):
    """As in the decoder of RT-DETRv2: maps of different ranges become one list of tokens, multiplied by a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 8, side, stride=side) for side in (2, 4))
        self.convs[1].weight.data *= 9
        self.values = nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        maps = [conv(images).flatten(2).transpose(1, 2) for conv in self.convs]
        result: Tensor = self.values(torch.cat(maps, 1))
        return result


def test_tokens_of_two_maps_keep_their_scales(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = _TokensOfTwoMaps().eval(), torch.rand(8, 3, 16, 16)
    quantized = quantize(model, images, config=QuantizationConfig(keep_float=()))
    record = export_model(
        model,
        tmp_path / "model.xml",
        format="openvino",
        images=images,
        variant="int8",
        quantized=quantized,
        preprocessing=Preprocessing(image_size=(16, 16)),
        classes=[],
    )
    assert record.max_relative_error < 0.02


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(1),
    "keepdim": lambda x: x.mean(1, keepdim=True).squeeze(1),
    "max": lambda x: x.amax(1),
    "sum": lambda x: x.sum(1) / 16,
    "scaled before": lambda x: (x * torch.arange(1.0, 17)).mean(1),
    "of a map": lambda x: x.unflatten(1, (4, 4)).mean((1, 2)),
    "largest of a map": lambda x: x.transpose(1, 2).unflatten(2, (4, 4)).amax((2, 3)),
}


class _Reductions(nn.Module):
    """Heads behind reductions over tokens, one channel of which is a hundred times larger than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16)
        self.heads = nn.ModuleList(nn.Linear(16, 10) for _ in REDUCTIONS)
        with torch.no_grad():
            self.fc.weight[5] *= 100
            for head in self.heads:
                head.weight[:, 5] /= 100

    def inputs(self, images: Tensor) -> list[Tensor]:
        tokens = self.fc(self.stem(images).flatten(2).transpose(1, 2))
        return [reduce(tokens) for reduce in REDUCTIONS.values()]

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([head(x) for head, x in zip(self.heads, self.inputs(images), strict=True)], 1)


def scaled_by_channel(model: _Reductions, images: Tensor) -> QuantizedModel:
    """Quantised, with an explicit scaling of every head's input."""
    plan = quantize(model, images, config=QuantizationConfig(preset="min_max")).plan
    scale, operands, smoothing = torch.logspace(-1, 1, 16), dict(plan.operands), {}
    with torch.inference_mode():
        inputs = model.inputs(images)
    given: dict[str, Any] = {"bit_width": 8, "observer": "min_max"}
    for index, (head, x) in enumerate(zip(model.heads, inputs, strict=True)):
        name = f"heads.{index}:input"
        smoothing[name] = Smoothing(scale=scale, shift=torch.zeros(16), explicit=True)
        operands[name] = observe_tensor(x / scale, signed=False, symmetric=False, **given)
        operands[f"heads.{index}:weight"] = observe_channels(head.weight.detach() * scale, 0, **given)
    return quantize(model, images, plan=replace(plan, operands=operands, smoothing=smoothing))


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_runtimes_scale_what_was_reduced_by_channel(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = _Reductions().eval(), torch.randn(24, 3, 16, 16)
    quantized = scaled_by_channel(model, images)
    about: dict[str, Any] = {"preprocessing": Preprocessing(image_size=(16, 16)), "classes": []}
    path = tmp_path / f"model{FORMATS[format].suffix}"
    record = export_model(model, path, format=format, images=images, quantized=quantized, **about)
    assert [(check.name, check.failure) for check in record.checks] == [(name, "") for name in takers(format)]
    with torch.inference_mode():
        wanted = quantized(images).numpy().reshape(24, -1, 10)
    for name in takers(format):
        output = open_session(path, name)(images.numpy()).reshape(24, -1, 10)
        for index, reduction in enumerate(REDUCTIONS):
            assert decibels(wanted[:, index], output[:, index]) > 30, f"{reduction} in {name}"


Repeat = Callable[["_Repeated", Tensor], Tensor]

REPEATS: dict[str, Repeat] = {
    "in front and behind": lambda m, x: torch.cat(
        [m.token.expand(x.shape[0], -1, -1), x, m.token.expand(x.shape[0], -1, -1)], 1
    ),
    "one value twice": lambda m, x: torch.cat([*[m.token.expand(x.shape[0], -1, -1)] * 2, x], 1),
    "twice, one after the other": lambda m, x: torch.cat(
        [m.token.expand(x.shape[0], -1, -1), 2 * torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1)], 1
    ),
    "to several": lambda m, x: torch.cat([m.token.expand(x.shape[0], 3, -1), x], 1),
    "to several of a vector": lambda m, x: torch.cat([m.token[0, 0].expand(x.shape[0], 2, -1), x], 1),
    "two": lambda m, x: torch.cat([m.token.expand(x.shape[0], -1, -1), m.other.expand(x.shape[0], -1, -1), x], 1),
    "by repeat": lambda m, x: torch.cat([m.other.repeat(x.shape[0], 2, 1), x], 1),
    "along the channels": lambda m, x: torch.cat([m.token[..., :8].expand(x.shape[0], 4, -1), x[..., :8]], 2),
    "alone": lambda m, x: m.token.expand(x.shape[0], 4, -1) + x,
}


class _Repeated(nn.Module):
    """Learned tokens that are repeated for every image, in many ways, before one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 10)
        self.token, self.other = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 1, 16))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        return torch.cat([self.fc(repeat(self, x)).mean(1) for repeat in REPEATS.values()], 1)


def test_tokens_are_repeated_for_every_image_in_every_way(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = _Repeated().eval(), torch.randn(20, 3, 8, 8)
    quantized = quantize(model, images, config=QuantizationConfig(preset="min_max", keep_float=()))
    about: dict[str, Any] = {"preprocessing": Preprocessing(image_size=(8, 8)), "classes": []}
    record = export_model(model, tmp_path / "model.onnx", images=images, quantized=quantized, **about)
    assert [check.failure for check in record.checks] == ["", ""]
    with torch.inference_mode():
        wanted = quantized(images).numpy().reshape(20, -1, 10)
    for name in takers("onnx"):
        output = open_session(tmp_path / "model.onnx", name)(images.numpy()).reshape(20, -1, 10)
        for index, way in enumerate(REPEATS):
            assert decibels(wanted[:, index], output[:, index]) > 40, f"{way} in {name}"
