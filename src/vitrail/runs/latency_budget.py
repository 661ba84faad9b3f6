"""A quantised model within a latency limit: the choice of products that stay in float, measured in the runtime."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from vitrail.bench.protocol import BenchConfig, measure
from vitrail.core.errors import QuantizationError
from vitrail.core.progress import Work
from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.source import Source
from vitrail.quantization import QuantizedModel, quantize
from vitrail.quantization.float_fallback import Product, leave_in_float, rank_products
from vitrail.runtimes import MEASURED, RUNTIMES, open_session

TIMING = BenchConfig(min_runs=30, min_seconds=0.5, budget_seconds=10.0, warmup_seconds=1.0, memory=False)


FITTING = "Measuring latency"
"""Title of the work that people see."""


def steps_of(num_products: int) -> int:
    """Number of models that are measured, at most."""
    return 1 + num_products.bit_length()


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A quantised model within a latency limit.

    Attributes:
        quantized: model with as many products in float as the latency allows; the notes of its plan give the
            measurement.
        latency_ms: measured latency of one image.
        num_float: number of products that went back to float.
        probes: number of products in float -> latency_ms, for every model that was measured.
    """

    quantized: QuantizedModel
    latency_ms: float
    num_float: int
    probes: dict[int, float]


def fit_latency(
    model: nn.Module,
    quantized: QuantizedModel,
    images: Tensor,
    *,
    max_latency_ms: float,
    runtime: str = "onnxruntime",
    threads: int = 1,
    latency_of: Callable[[QuantizedModel], float] | None = None,
    progress: bool = False,
) -> Fitted:
    """Return products to float within a latency limit, those with the largest loss from quantisation first.

    Bit widths of weights hardly change the latency on a processor, so the choice is between integers and float. The
    number of products is found by bisection, with one file and one measurement per step.

    Args:
        model: float model.
        quantized: fully quantised model with codes that runtimes execute.
        images: normalised calibration images (n, c, h, w).
        max_latency_ms: limit of the median wall time of one image.
        runtime: runtime of the measurement, "onnxruntime" or "openvino".
        threads: number of threads of the runtime.
        latency_of: function from a model to its latency in milliseconds. Default: measurement in the runtime.
        progress: show a bar with the time left.

    Raises:
        QuantizationError: the plan is simulated only, the runtime executes no codes, or the model with all products
            in integers is too slow; the message gives its latency.
    """
    _check_executable(quantized, runtime)
    timed = latency_of or (lambda each: latency_ms(model, each, images, runtime=runtime, threads=threads))
    place = f"{runtime} with {threads} thread{'s' if threads > 1 else ''}"
    ranked = rank_products(model, images, quantized.plan)
    work = Work(FITTING, steps_of(len(ranked)), progress=progress)

    def counted(each: QuantizedModel) -> float:
        found = timed(each)
        work.advance()
        return found

    try:
        fitted, probes, fits = _bisect(model, quantized, images, ranked, counted, max_latency_ms, place)
    finally:
        work.end()
    note = (
        f"{fits} of {len(ranked)} products went back to float; an image took {probes[fits]:.3g} ms in {place}, "
        f"{max_latency_ms:g} ms were allowed"
    )
    fitted.plan = replace(fitted.plan, notes=(*fitted.plan.notes, note))
    return Fitted(quantized=fitted, latency_ms=probes[fits], num_float=fits, probes=probes)


def _bisect(
    model: nn.Module,
    quantized: QuantizedModel,
    images: Tensor,
    ranked: Sequence[Product],
    timed: Callable[[QuantizedModel], float],
    max_latency_ms: float,
    place: str,
) -> tuple[QuantizedModel, dict[int, float], int]:
    """The model with as many products in float as the latency allows, all measurements, and that number.

    Raises:
        QuantizationError: the model with all products in integers is too slow.
    """
    fitted, probes = quantized, {0: timed(quantized)}
    if probes[0] > max_latency_ms:
        raise QuantizationError(
            f"cannot be met: with all {len(ranked)} products in integers an image takes {probes[0]:.3g} ms in {place}; "
            f"allow more, or take a smaller model",
            max_latency_ms=max_latency_ms,
        )
    fits, too_many = 0, len(ranked)  # without products in integers it would be the float model
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        each = quantize(model, images, plan=leave_in_float(quantized.plan, ranked[:middle]))
        each.diagnostics = quantized.diagnostics
        probes[middle] = timed(each)
        if probes[middle] <= max_latency_ms:
            fitted, fits = each, middle
        else:
            too_many = middle
    return fitted, probes, fits


def _check_executable(quantized: QuantizedModel, runtime: str) -> None:
    if quantized.plan.simulated:
        raise QuantizationError(
            f"{quantized.plan.simulated[0]} has codes that no runtime executes, so there is no latency to measure; "
            f"use activation_bits=8 and no mixed_activations with max_latency_ms"
        )
    able = [name for name in MEASURED if RUNTIMES[name].executes_integers]
    if runtime not in able:
        raise QuantizationError(f"runtime '{runtime}' executes no codes of ours; choose {' or '.join(able)}")


def latency_ms(model: nn.Module, quantized: QuantizedModel, images: Tensor, *, runtime: str, threads: int) -> float:
    """Median wall time of one image in a runtime, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(onnx_bytes(Source(model=model, images=images, quantized=quantized)))
        session = open_session(file, runtime, threads)
        image = images[:1].numpy()
        timings = measure({runtime: lambda: session(image)}, TIMING)[runtime]
    if timings.failure is not None:
        raise QuantizationError(f"{runtime} does not run the quantised model: {timings.failure}")
    return statistics.median(timings.wall) * 1e3
