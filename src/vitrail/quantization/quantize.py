"""Post-training static quantisation: capture, find, smooth, calibrate, choose, round, rewrite."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization.config import QuantizationConfig
from vitrail.quantization.decide import decide_plan
from vitrail.quantization.diagnostics import Diagnostics
from vitrail.quantization.plan import QuantizationPlan
from vitrail.quantization.prepare import prepared_graph
from vitrail.quantization.rewrite import rewrite
from vitrail.quantization.sites import Site, find_sites, fingerprint
from vitrail.quantization.smoothing import apply_smoothing, explicit_group, find_norm_groups

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
        row_parts: as the float model has them, see :class:`vitrail.tasks.Task`; both are taken from ``like``.
        diagnostics: what was seen on the way; None for a model that was rebuilt from a plan.
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
    ones where two activations are multiplied (queries, keys, values), as runtimes like it. Norms, softmax, activation
    functions and residual additions stay in float. By default the first, depthwise, and transposed convolutions stay in
    float too; see ``QuantizationConfig.keep_float``.

    Args:
        model: any module from normalised images (b, c, h, w) to one tensor; it is not changed.
        images: normalised calibration images (n, c, h, w); with a ``plan`` only their shape counts.
        config: bit widths or a budget, and how everything is chosen.
        plan: apply this instead of calibrating.
        progress: show bars.
        resume: a file that keeps the rounded weights while they are made; a later call with the same arguments goes on
            from it, and the finished one removes it.

    Raises:
        QuantizationError: no images, an activation that is constant or not finite (by name), a model that cannot be
            captured, a budget that cannot be met, or a plan that was made for another model.
    """
    if images.ndim != 4 or len(images) == 0:
        raise QuantizationError(
            f"calibration images have shape {tuple(images.shape)}; pass at least one normalised image (n, c, h, w), "
            f"better {FEW_IMAGES} or more"
        )
    graph_module = prepared_graph(model, images)
    sites, unsupported = find_sites(graph_module)
    name = _class_name(model)
    diagnostics = None
    if plan is None:
        plan, diagnostics = decide_plan(
            graph_module,
            sites,
            images,
            config or QuantizationConfig(),
            model=name,
            unsupported=unsupported,
            few_images=FEW_IMAGES,
            progress=progress,
            resume=None if resume is None else Path(resume),
        )
    else:
        check_plan(plan, name, fingerprint(graph_module, sites), sites)
        smooth_again(graph_module, sites, plan, images)
    rewrite(graph_module, sites, plan)
    return QuantizedModel(graph_module, plan, model, diagnostics).eval()


def smooth_again(graph_module: fx.GraphModule, sites: list[Site], plan: QuantizationPlan, images: Tensor) -> None:
    """Apply a plan's smoothing to the float graph, in place."""
    for group in find_norm_groups(graph_module, sites, torch.zeros_like(images[:1])):
        smoothing = plan.smoothing.get(group.name)
        if smoothing is not None and not smoothing.explicit:
            apply_smoothing(graph_module, group, smoothing)
    for site in sites:
        smoothing, alone = plan.smoothing.get(site.left.name), explicit_group(site)
        if smoothing is not None and smoothing.explicit and alone is not None:
            apply_smoothing(graph_module, alone, smoothing)


def check_plan(plan: QuantizationPlan, model: str, actual: str, sites: list[Site]) -> None:
    """
    Raises:
        QuantizationError: the plan was made for another model; the message names what differs.
    """
    known = {operand.name for site in sites for operand in site.operands}
    strangers = [name for name in [*plan.operands, *plan.smoothing, *plan.rounded] if name not in known]
    if not strangers and actual == plan.fingerprint:
        return
    difference = (
        f"this model has no operand '{strangers[0]}'" if strangers else f"fingerprint {plan.fingerprint}, not {actual}"
    )
    raise QuantizationError(
        f"the plan was made for another model ({plan.model}) than this {model}: {difference}; quantise this one with: "
        f"vitrail quantize"
    )


def _class_name(model: nn.Module) -> str:
    inner = getattr(model, "backbone", None)
    return type(inner if isinstance(inner, nn.Module) else model).__name__
