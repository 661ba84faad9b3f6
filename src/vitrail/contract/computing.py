"""Promises on what a model computes, checked on a small one."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vitrail.contract.promise import (
    NUM_CLASSES,
    Make,
    NotApplicableError,
    images_for,
    lively_model,
    need_close,
    need_shape,
    promised,
)
from vitrail.core.errors import ImageSizeError

FAINT = 1e-3
"""Difference of two images' outputs below which nothing can be told from rounding."""

FEWEST, MOST = 8, 100
"""Steps of training: a model of a few thousand parameters needs more than a large one."""


def images_do_not_mix(make: Make) -> None:
    """An image's output depends on no other image of the batch, and on the image."""
    model = lively_model(make)
    x = images_for(model, 3)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(x[i : i + 1]) for i in range(3)])
    need_close("alone against three together", together, alone, 1e-4, 1e-5)
    difference = float((together[0] - together[1]).abs().max())
    promised(difference > 0, "two different images have the same output")
    if difference <= FAINT:
        raise NotApplicableError(f"with random weights, outputs of different images differ by {difference:.2g} only")


def state_dict_round_trip(make: Make) -> None:
    """Saved and loaded again, the weights give the same output."""
    model, other = lively_model(make), make(num_classes=NUM_CLASSES).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
        other.load_state_dict(load_file(path), strict=True)
    x = images_for(model)
    with torch.no_grad():
        promised(torch.equal(model(x), other(x)), "the output is another one after saving and loading")


def training_lowers_the_loss(make: Make, most: int = MOST) -> None:
    """Some steps, ``most`` at most, on eight images lower the loss by a fifth, and every parameter gets a gradient."""
    model = make(num_classes=4, drop_path_rate=0.05).train()
    x, targets = images_for(model, 8), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses: list[float] = []
    while len(losses) < FEWEST or (len(losses) < most and min(losses[-2:]) >= 0.8 * losses[0]):
        loss = nn.functional.cross_entropy(model(x), targets)
        optimizer.zero_grad()
        loss.backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        promised(not missing, f"{', '.join(missing[:3])}: no gradient arrives; is it used?")
        optimizer.step()
        losses.append(loss.item())
    told = (
        f"{len(losses)} steps on 8 images changed the loss from {losses[0]:.3g} to {losses[-1]:.3g}, not to 80 % of it"
    )
    promised(min(losses[-2:]) < 0.8 * losses[0], told)


def gradient_checkpointing_changes_nothing(make: Make) -> None:
    """Gradients are the same where blocks are computed again; blocks are called through ``run_block``."""
    model = lively_model(make).train()
    x = images_for(model)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(1)  # the same dropout
        model(x).square().sum().backward()
        every = [p.grad for p in model.parameters() if p.requires_grad]
        gradients.append([grad.clone() for grad in every if grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        need_close("with gradient checkpointing", recomputed, plain, 1e-4, 1e-5 * float(plain.abs().max() + 1))


def takes_other_sizes(make: Make) -> None:
    """Any legal image size is taken, a rectangle too, and an illegal one is refused with its numbers."""
    native = make(num_classes=NUM_CLASSES)
    side, divisor = native.config.image_size[0], native.size_divisor
    size = (side + divisor, side)
    model = lively_model(make, image_size=size)
    x = torch.randn(1, model.config.in_chans, *size)
    with torch.no_grad():
        need_shape(f"the output for {size[0]}x{size[1]} pixels", model(x), (1, NUM_CLASSES))
        _, maps = model.forward_intermediates(x)
    for info, level in zip(model.feature_info, maps, strict=True):
        shape = (1, info.channels, -(-size[0] // info.stride), -(-size[1] // info.stride))
        need_shape(f"level '{info.name}' for {size[0]}x{size[1]} pixels", level, shape)
    if divisor == 1:
        return  # nothing is illegal
    try:
        model(torch.randn(1, model.config.in_chans, side + 1, side))
    except ImageSizeError as error:
        promised(f"{side + 1}x{side}" in str(error), f"the error on {side + 1}x{side} pixels does not say the size")
    else:
        promised(False, f"size_divisor is {divisor}, and {side + 1}x{side} pixels are taken; call check_image_size")


def chosen_levels_are_right(make: Make) -> None:
    """``forward_intermediates`` gives the levels that are asked for."""
    model = lively_model(make)
    x = images_for(model)
    with torch.no_grad():
        final, every = model.forward_intermediates(x)
        last_two = model.forward_intermediates(x, min(2, len(every)), intermediates_only=True)
        first = model.forward_intermediates(x, [0], intermediates_only=True)
        promised(torch.equal(final, model.forward_features(x)), "its final features are not those of forward_features")
    promised(torch.equal(first[0], every[0]), "level 0 alone is another one than among all")
    same = all(torch.equal(a, b) for a, b in zip(last_two, every[-2:], strict=True))
    promised(same, "the last levels alone are others than among all")


def fusing_changes_no_output(make: Make) -> None:
    """``fuse_for_inference`` folds norms and scales, and changes the output by rounding alone."""
    model = lively_model(make).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for shift in (one for one in (module.running_mean, module.bias) if one is not None):
                nn.init.normal_(shift)
            for scale in (one for one in (module.running_var, module.weight) if one is not None):
                nn.init.uniform_(scale, 0.5, 2)
        for name, parameter in module.named_parameters(recurse=False):
            if "layer_scale" in name:
                nn.init.normal_(parameter)
    x = images_for(model).double()
    with torch.no_grad():
        expected = model(x)
        fused = model.fuse_for_inference()(x)
        again = model.fuse_for_inference()(x)
    need_close("fused against trained", fused, expected, 1e-7, 1e-9)
    promised(torch.equal(fused, again), "fusing a second time changes the output")


def exports_with_torch(make: Make) -> None:
    """``torch.export`` captures the model, and the program gives the same output."""
    model = lively_model(make)
    x = images_for(model)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's own making
        program = torch.export.export(model, (x,), strict=False)
        need_close("torch.export", program.module()(x), model(x), 1e-4, 1e-5)


def compiles_without_graph_breaks(make: Make) -> None:
    """``torch.compile`` takes the model as one graph, and the output stays the same."""
    model = lively_model(make)
    x = images_for(model)
    torch.compiler.reset()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inductor's own making
        compiled = torch.compile(model, fullgraph=True)(x)
        need_close("torch.compile", compiled, model(x), 1e-3, 1e-4)
