"""The graph of a model for exactly one image, for runtimes that plan memory ahead."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrail.export.failure import explained
from vitrail.quantization.graph.capture import joined, without_checks


def one_image_program(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The graph of a model for exactly one image of the shape of ``images`` (n, c, h, w).

    What depends on weights alone, such as a table of relative positions spread over all pairs, is computed here once:
    mobile runtimes would compute it for every image, or lack the operations.

    Raises:
        ExportError: the model cannot be captured.
    """
    from torch._inductor.constant_folding import constant_fold

    example = (torch.zeros(1, *images.shape[1:]),)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with explained("torch.export"), torch.no_grad():
            module = without_checks(torch.export.export(joined(model), example)).module(check_guards=False)
            constant_fold(module)
            return without_checks(torch.export.export(module, example))
    finally:
        for part, training in modes:
            part.training = training
