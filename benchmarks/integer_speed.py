"""Processor time and size of quantised files beside the float file of the same runtime, and beside NNCF's.

    python benchmarks/integer_speed.py --images photos/ --weights vit_tiny.safetensors

For every model: float32, 8-bit weights, every other weight in 4 bits, all weights in 4 bits, each in ONNX Runtime and
in OpenVINO, and NNCF's 8 bits in OpenVINO where it is installed. One thread, one image, shapes fixed when a file is
loaded, candidates interleaved in random order, median of the process's processor time. Widths change neither kernels
nor shapes, so the narrow weights are the 8-bit ones rounded once more.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import timm
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.export.convert import to_onnx
from vitrail.export.packing import pack_weights
from vitrail.quantization import QuantizationConfig, capture, quantize
from vitrail.runtimes.openvino_core import openvino_core

Run = Callable[[NDArray[np.float32]], object]
MODELS = ("vit_tiny_patch16_224", "vit_small_patch16_224")
WIDTHS = {"int8": (8,), "int4/int8": (8, 4), "int4": (4,)}
SMALLEST_NARROWED = 4096
RUNS_A_TURN = 2


def read_images(folder: Path, count: int) -> Tensor:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    if not files:
        raise SystemExit(f"{folder} has no JPEG or PNG images")
    pixels = [np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def narrowed(model: onnx.ModelProto, widths: tuple[int, ...]) -> onnx.ModelProto:
    """A copy whose weights have these widths in turn."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    weights = [
        node
        for node in copy.graph.node
        if node.op_type == "DequantizeLinear"
        and (tensor := tensors.get(node.input[0])) is not None
        and tensor.data_type == TensorProto.INT8
        and np.prod(tensor.dims) >= SMALLEST_NARROWED
    ]
    for index, node in enumerate(weights):
        ratio = (2 ** (widths[index % len(widths)] - 1) - 1) / 127
        codes, scale = (numpy_helper.to_array(tensors[name]) for name in node.input[:2])
        for name, value in zip(node.input, (np.rint(codes * ratio).astype(np.int8), scale / ratio), strict=False):
            tensors[name].CopyFrom(numpy_helper.from_array(value.astype(value.dtype), name))
    pack_weights(copy)
    return copy


def write_files(model: nn.Module, images: Tensor, folder: Path) -> dict[str, Path]:
    """Files by what is in them."""
    files = {name: folder / f"{name.replace('/', '_')}.onnx" for name in ("float32", *WIDTHS)}
    files["float32"].write_bytes(to_onnx(capture(model, images, ExportError), "image", ["logits"]).SerializeToString())
    config = QuantizationConfig(observer="min_max", keep_float=("depthwise", "conv_transpose"))
    quantized = quantize(model, images, config=config)
    integers = to_onnx(capture(quantized.graph_module, images, ExportError), "image", ["logits"])
    for name, widths in WIDTHS.items():
        files[name].write_bytes(narrowed(integers, widths).SerializeToString())
    return files


def write_nncf(float_file: Path, images: Tensor, file: Path) -> bool:
    """NNCF's 8 bits with its settings for transformers; False where it is not installed."""
    try:
        import nncf
    except ImportError:
        return False
    dataset = nncf.Dataset([image[None].numpy() for image in images])
    model = openvino_core().read_model(float_file)
    quantized = nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images))
    openvino.save_model(quantized, file, compress_to_fp16=False)
    return True


def in_onnx_runtime(file: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for name, size in (("batch", 1), ("height", 224), ("width", 224)):
        options.add_free_dimension_override_by_name(name, size)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {session.get_inputs()[0].name: x})


def in_openvino(file: Path) -> Run:
    model = openvino_core().read_model(file)
    model.reshape([1, 3, 224, 224])
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1"}
    request = openvino_core().compile_model(model, "CPU", options).create_infer_request()
    return lambda x: request.infer([x], share_inputs=True)


def interleaved(candidates: dict[str, Run], x: NDArray[np.float32], rounds: int) -> dict[str, float]:
    """Median processor time of a run, ms."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds + 2):
        random.shuffle(order)
        for name in order:
            candidates[name](x)  # caches hold the last candidate's weights
            start = time.process_time_ns()
            for _ in range(RUNS_A_TURN):
                candidates[name](x)
            times[name].append((time.process_time_ns() - start) / RUNS_A_TURN / 1e6)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def table(name: str, model: nn.Module, images: Tensor, rounds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(model, images, Path(folder))
        candidates = {f"onnxruntime {kind}": in_onnx_runtime(file) for kind, file in files.items()}
        nncf_file = Path(folder) / "nncf.xml"
        if write_nncf(files["float32"], images, nncf_file):
            files["NNCF int8"] = nncf_file
        candidates |= {f"openvino {kind}": in_openvino(file) for kind, file in files.items()}
        times = interleaved(candidates, images[:1].numpy(), rounds)
        sizes = {kind: file.stat().st_size for kind, file in files.items()}
        if nncf_file.exists():
            sizes["NNCF int8"] += nncf_file.with_suffix(".bin").stat().st_size
    lines = [f"### {name}", "", "| runtime | file | ms | of float32 | MB | of float32 |", "|---|---|---|---|---|---|"]
    for candidate, ms in times.items():
        runtime, _, kind = candidate.partition(" ")
        ratio, share = ms / times[f"{runtime} float32"], sizes[kind] / sizes["float32"]
        lines.append(f"| {runtime} | {kind} | {ms:.2f} | {ratio:.3f} | {sizes[kind] / 1e6:.2f} | {share:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="names in timm, at 224 pixels")
    parser.add_argument("--images", type=Path, required=True, help="folder to calibrate on")
    parser.add_argument("--num-images", type=int, default=16)
    parser.add_argument("--weights", type=Path, help="of the first model; the others are random, as timm makes them")
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    images = read_images(args.images, args.num_images)
    for index, name in enumerate(args.models):
        model = timm.create_model(name).eval()
        if index == 0 and args.weights:
            model.load_state_dict(load_file(args.weights))
        print(table(name, model, images, args.rounds), flush=True)


if __name__ == "__main__":
    main()
