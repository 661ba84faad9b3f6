"""Post-training static quantisation: capture, calibrate, smooth, assign bit widths, fit, plan, rewrite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization.assign import QuantizerCandidates
from vitrail.quantization.config import MAX_BITS, QuantizationConfig
from vitrail.quantization.context import Context
from vitrail.quantization.diagnostics import Diagnostics, output_decibels
from vitrail.quantization.graph.ops import QuantizedOp, contents_digest, find_ops, fingerprint
from vitrail.quantization.graph.prepare import prepared_graph
from vitrail.quantization.graph.rewrite import rewrite
from vitrail.quantization.graph.usable import check_usable
from vitrail.quantization.keep_float import split_by_keep_float
from vitrail.quantization.methods.block_reconstruction import reconstruct
from vitrail.quantization.methods.calibration import calibrate
from vitrail.quantization.methods.gptq import round_weights
from vitrail.quantization.methods.smoothing import smooth, smooth_again
from vitrail.quantization.mixed_precision.bit_widths import assign_bit_widths
from vitrail.quantization.plan import QuantizationPlan, Rounding
from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.resume import ResumeFile

FEW_IMAGES = 16
"""Fewer calibration images than this are worth a note: they rarely hold the largest values."""

LARGEST_PIXEL = 10.0
"""Absolute value of a pixel above which images are worth a note: normalising gives 2 to 3."""


class QuantizedModel(nn.Module):
    """A model whose products take codes of 2 to 8 bits.

    ``forward`` simulates in float32 what the exported file computes in integers; the two differ only where the order
    of float additions moves a value across the edge between two codes.

    Attributes:
        graph_module: rewritten graph; its weights are integer codes.
        plan: decisions that rebuild it from the float model.
        output_name: name of the exported file's output.
        row_parts: lengths of the parts of an output row, see :class:`vitrail.tasks.Task`; both are taken from ``like``.
        diagnostics: measurements of the quantisation; None for a model that was rebuilt from a plan.
    """

    def __init__(
        self,
        graph_module: nn.Module,
        plan: QuantizationPlan,
        like: nn.Module,
        diagnostics: Diagnostics | None = None,
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.plan = plan
        self.output_name: str = getattr(like, "output_name", "logits")
        self.row_parts: tuple[int, ...] = getattr(like, "row_parts", ())
        self.diagnostics = diagnostics

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to what the float model returns."""
        result: Tensor = self.graph_module(images)
        return result


def quantize(
    model: nn.Module,
    images: Tensor,
    *,
    config: QuantizationConfig | None = None,
    plan: QuantizationPlan | None = None,
    progress: bool = False,
    resume: str | Path | None = None,
) -> QuantizedModel:
    """Quantise every linear, convolution and matmul operand of a model that ``torch.export`` can capture.

    Weights get signed symmetric codes per channel; activations unsigned affine ones per tensor, but signed symmetric
    ones where two activations are multiplied (queries, keys, values), as runtimes need them. Norms, softmax, activation
    functions and residual additions stay in float. By default the first, depthwise, and transposed convolutions stay in
    float too; see ``QuantizationConfig.keep_float``.

    Args:
        model: any module from normalised images (b, c, h, w) to one tensor; it is not changed.
        images: normalised calibration images (n, c, h, w); with a ``plan`` only their shape counts.
        config: bit widths or a budget, and the methods.
        plan: decisions to apply instead of calibrating.
        progress: show bars.
        resume: file of intermediate results; a later call with the same arguments continues with them after an
            interruption, and the finished call removes it.

    Raises:
        QuantizationError: no images; a model that is quantised already, is not in float32, does not return one tensor
            (:class:`~vitrail.quantization.OneOutput` makes it so) or cannot be captured; an activation that is constant
            or not finite (by name); a budget that cannot be met; a plan that was made for another model or for other
            weights; a word of ``keep_float`` that matches nothing; a model of which nothing would be in integers.
    """
    if images.ndim != 4 or len(images) == 0:
        raise QuantizationError(
            f"calibration images have shape {tuple(images.shape)}; pass at least one normalised image (n, c, h, w), "
            f"better {FEW_IMAGES} or more"
        )
    if any(isinstance(module, QuantizedModel) for module in model.modules()):
        raise QuantizationError(
            f"{type(model).__name__} is quantised already; pass the float model that it was made from"
        )
    check_usable(model, images, QuantizationError)
    graph_module = prepared_graph(model, images)
    ops, unsupported = find_ops(graph_module)
    name, diagnostics = _class_name(model), None
    identity = {"fingerprint": fingerprint(graph_module, ops), "weights": contents_digest(model.state_dict())}
    if plan is None:
        config = config or QuantizationConfig()
        quantised, skipped = split_by_keep_float(ops, unsupported, config.keep_float)
        key = identity | {"images": contents_digest({"images": images})}
        with ResumeFile.open(None if resume is None else Path(resume), key, config) as file:
            context = Context(graph_module, quantised, images, config, resume=file, progress=progress)
            plan, diagnostics = make_plan(context, model=name, skipped=skipped, **identity)
    else:
        check_plan(plan, name, identity, ops)
        smooth_again(graph_module, ops, plan.smoothing, images)
    rewrite(graph_module, ops, plan)
    return QuantizedModel(graph_module, plan, model, diagnostics).eval()


def make_plan(
    context: Context, *, model: str, fingerprint: str, weights: str, skipped: Sequence[str]
) -> tuple[QuantizationPlan, Diagnostics]:
    """All decisions of a quantisation; smooths the graph in place.

    Raises:
        QuantizationError: see :func:`quantize`.
    """
    config = context.config
    context.observations = calibrate(context, gradients=config.preset != "min_max" or config.mixed)
    smoothing = smooth(context)
    candidates = QuantizerCandidates(context)
    bit_widths, allocation = assign_bit_widths(context, candidates)
    operands, rounding = _fit(context, candidates, candidates.assign_quantizers(bit_widths))
    plan = QuantizationPlan(
        model=model,
        fingerprint=fingerprint,
        weights=weights,
        operands=operands,
        smoothing=smoothing,
        rounding=rounding,
        skipped=tuple(skipped),
        notes=tuple(remarks(context.images)),
        counts={name: count for name, count in candidates.counts.items() if name in operands},
        num_images=len(context.images),
        config=config,
    )
    return plan, Diagnostics(decibels=output_decibels(context, operands), allocation=allocation)


def remarks(images: Tensor) -> Iterator[str]:
    """What is unusual in calibration images (n, c, h, w)."""
    if len(images) < FEW_IMAGES:
        yield f"only {len(images)} calibration images were given; {FEW_IMAGES} or more give safer ranges"
    low, high = (float(value) for value in images.aminmax())
    if max(-low, high) > LARGEST_PIXEL:
        yield (
            f"the calibration images go from {low:.3g} to {high:.3g}, and normalised ones stay within -3 to 3 or so; "
            "give them as the model gets them: pixels divided by 255, less the mean, divided by the standard deviation"
        )
    elif 0 <= low < high <= 1:
        yield (
            f"the calibration images go from {low:.3g} to {high:.3g} as pixels that were not normalised; give them as "
            "the model gets them, less the mean and divided by the standard deviation, if it has these"
        )


def _fit(
    context: Context, candidates: QuantizerCandidates, operands: dict[str, Quantizer]
) -> tuple[dict[str, Quantizer], dict[str, Rounding]]:
    """Rounded weights, corrected biases and trained scales, where the configuration has them."""
    choices = context.config.resolved()
    rounding: dict[str, Rounding] = {}
    if choices.rounding != "nearest" or choices.correction != "none":
        rounding = round_weights(context, operands)
    if choices.reconstruction == "blocks" and any(quantizer.bit_width < MAX_BITS for quantizer in operands.values()):
        operands, rounding = reconstruct(context, operands, rounding, candidates.sources)
    return operands, rounding


def check_plan(plan: QuantizationPlan, model: str, identity: Mapping[str, str], ops: list[QuantizedOp]) -> None:
    """
    Raises:
        QuantizationError: the plan was made for another model, or for other weights; the message names what differs.
    """
    actual = identity["fingerprint"]
    known = {operand.name for op in ops for operand in op.operands}
    unknown_operands = [name for name in [*plan.operands, *plan.smoothing, *plan.rounding] if name not in known]
    if not unknown_operands and actual == plan.fingerprint:
        if plan.weights in ("", identity["weights"]):
            return
        raise QuantizationError(
            f"the plan was made for other weights of {plan.model} (digest {plan.weights}, not {identity['weights']}); "
            f"load those weights, or quantise these with: vitrail quantize RUN"
        )
    difference = (
        f"this model has no operand '{unknown_operands[0]}'"
        if unknown_operands
        else f"fingerprint {plan.fingerprint}, not {actual}"
    )
    raise QuantizationError(
        f"the plan was made for another model ({plan.model}) than this {model}: {difference}; quantise this one with: "
        f"vitrail quantize RUN"
    )


def _class_name(model: nn.Module) -> str:
    inner = getattr(model, "backbone", None)
    return type(inner if isinstance(inner, nn.Module) else model).__name__
