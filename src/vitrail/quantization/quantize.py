"""Post-training static quantisation: capture, find, calibrate, plan, rewrite."""

from __future__ import annotations

from torch import Tensor, fx, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization.calibration import calibrate
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.observers import OBSERVERS
from vitrail.quantization.plan import QuantizationConfig, QuantizationPlan
from vitrail.quantization.prepare import prepared_graph
from vitrail.quantization.quantizers import UniformQuantizer, channel_range
from vitrail.quantization.rewrite import rewrite
from vitrail.quantization.sites import Operand, Site, find_sites, fingerprint

FEW_IMAGES = 16
"""Fewer calibration images than this are worth a note: the largest values have probably not been seen."""


class QuantizedModel(nn.Module):
    """A model whose products take codes of 2 to 8 bits.

    ``forward`` simulates in float32 what the exported file computes in integers; the two differ only where the order
    of float additions moves a value across the edge between two codes.

    Attributes:
        graph_module: the rewritten graph; its weights are integer codes.
        plan: rebuilds it from the float model.
        output_name: how the exported file calls its output.
    """

    def __init__(self, graph_module: fx.GraphModule, plan: QuantizationPlan, output_name: str = "logits") -> None:
        super().__init__()
        self.graph_module = graph_module
        self.plan = plan
        self.output_name = output_name

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
) -> QuantizedModel:
    """Quantise every linear, convolution and matmul operand of a model that ``torch.export`` can capture.

    Weights get signed symmetric codes per channel; activations unsigned affine ones per tensor, but signed symmetric
    ones where two activations are multiplied (queries, keys, values), as runtimes like it. Norms, softmax, activation
    functions and residual additions stay in float. By default the first, depthwise, and transposed convolutions stay in
    float too: OpenVINO misreads the first; codes cost the second 1 dB of output noise on a trained EdgeViT (and
    no top-1 that could be told from chance); the third have no integer kernel in ONNX Runtime;
    see ``QuantizationConfig.keep_float``.

    Args:
        model: any module from normalised images (b, c, h, w) to one tensor; it is not changed.
        images: normalised calibration images (n, c, h, w); with a ``plan`` only their shape counts.
        config: bit widths, observer, what stays in float.
        plan: apply this instead of calibrating.
        progress: show a bar.

    Raises:
        QuantizationError: no images, an activation that is constant or not finite (by name), a model that cannot be
            captured, or a plan that was made for another model.
    """
    if images.ndim != 4 or len(images) == 0:
        raise QuantizationError(
            f"calibration images have shape {tuple(images.shape)}; pass at least one normalised image (n, c, h, w), "
            f"better {FEW_IMAGES} or more"
        )
    graph_module = prepared_graph(model, images)
    sites, unsupported = find_sites(graph_module)
    if plan is None:
        plan = make_plan(model, graph_module, sites, unsupported, images, config or QuantizationConfig(), progress)
    else:
        check_plan(plan, model, graph_module, sites)
    rewrite(graph_module, sites, plan)
    return QuantizedModel(graph_module, plan, getattr(model, "output_name", "logits")).eval()


def make_plan(
    model: nn.Module,
    graph_module: fx.GraphModule,
    sites: list[Site],
    unsupported: list[str],
    images: Tensor,
    config: QuantizationConfig,
    progress: bool = False,
) -> QuantizationPlan:
    """Calibrate on the images and choose a quantiser for every operand that is not kept in float."""
    kept = {site.path: pattern for site in sites if (pattern := site.matches(config.keep_float)) is not None}
    chosen = [site for site in sites if site.path not in kept]
    operands = [operand for site in chosen for operand in site.operands]
    weights = {o.name: w for o in operands if o.axis is not None and (w := tensor_of(graph_module, o.node)) is not None}
    activations = [operand for operand in operands if operand.name not in weights]
    ranges = calibrate(graph_module, activations, images, OBSERVERS[config.observer], progress=progress)
    notes = []
    if len(images) < FEW_IMAGES:
        notes.append(f"only {len(images)} calibration images were given; {FEW_IMAGES} or more give safer ranges")
    return QuantizationPlan(
        model=_class_name(model),
        fingerprint=fingerprint(graph_module, sites),
        operands={o.name: _quantizer(o, weights.get(o.name), ranges, config) for o in operands},
        skipped=(*unsupported, *(f"{path}: kept in float by keep_float '{pattern}'" for path, pattern in kept.items())),
        notes=tuple(notes),
        num_images=len(images),
        config=config,
    )


def _quantizer(
    operand: Operand, weight: Tensor | None, ranges: dict[str, tuple[Tensor, Tensor]], config: QuantizationConfig
) -> UniformQuantizer:
    low, high = ranges[operand.name] if weight is None else channel_range(weight, operand.axis)
    try:
        return UniformQuantizer.from_range(
            low,
            high,
            bit_width=config.activation_bits if weight is None else config.weight_bits,
            signed=operand.signed,
            symmetric=operand.symmetric,
            axis=operand.axis if weight is not None else None,
        )
    except QuantizationError as error:
        raise QuantizationError(f"{operand.name}: {error}") from error


def check_plan(plan: QuantizationPlan, model: nn.Module, graph_module: fx.GraphModule, sites: list[Site]) -> None:
    """
    Raises:
        QuantizationError: the plan was made for another model; the message names what differs.
    """
    known = {operand.name for site in sites for operand in site.operands}
    strangers = [name for name in plan.operands if name not in known]
    actual = fingerprint(graph_module, sites)
    if not strangers and actual == plan.fingerprint:
        return
    difference = (
        f"this model has no operand '{strangers[0]}'" if strangers else f"fingerprint {plan.fingerprint}, not {actual}"
    )
    raise QuantizationError(
        f"the plan was made for another model ({plan.model}) than this {_class_name(model)}: {difference}; quantise "
        f"this one with: vitrail quantize"
    )


def _class_name(model: nn.Module) -> str:
    inner = getattr(model, "backbone", None)
    return type(inner if isinstance(inner, nn.Module) else model).__name__
