"""A checkpoint's tensors in the shapes of a model, and the remedy where they have no place in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.core.types import ImageSize
from vitrail.models.base import Backbone

FOREIGN = {
    "dist_token": "a distillation token (as DeiT)",
    "head_dist": "a distillation token (as DeiT)",
    "reg_token": "register tokens",
    "register_tokens": "register tokens",
    ".ls1": "LayerScale",
    ".layer_scale": "LayerScale",
    ".gamma_1": "LayerScale",
    ".lambda_1": "LayerScale",
    ".q_norm": "norms of queries and keys",
    "norm_pre": "a norm before the blocks (as CLIP)",
    "attn_pool": "attention pooling",
    "rel_pos": "relative positions",
    "relative_position": "relative positions",
    "decoder_": "a decoder (as masked autoencoders)",
}
"""Part of a name -> what weights with it have."""

HEAD_REMEDY = (
    "only the classifier does not fit: replace_head=True keeps the model's own, and 'vitrail train --weights' trains a "
    "new one"
)

RGB = 3


def adapt(
    model: Backbone, state: Mapping[str, Tensor], source: str, image_size: ImageSize | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Kernels of the stem and tables of positions in the model's shape, and sentences on the kernels.

    Args:
        model: gives the shapes.
        state: our names -> tensors.
        source: how error messages call the checkpoint.
        image_size: (height, width) that the weights were made for; None where that is unknown.

    Raises:
        CheckpointError: a table that cannot be resized.
    """
    target, adapted, remarks = model.state_dict(), dict(state), []
    in_chans, same_size = model.config.in_chans, image_size in (None, model.config.image_size)
    for name, tensor in state.items():
        shape = tuple(target[name].shape) if name in target else tuple(tensor.shape)
        if _channels(model, shape, tensor) == RGB != in_chans:
            adapted[name] = _with_channels(tensor, in_chans)
            way = "summed" if in_chans == 1 else "repeated"
            remarks.append(f"{source}: {name}, for {RGB} channels, is {way} for in_chans={in_chans}")
        elif tensor.shape != shape or not same_size:
            try:
                resized = model.adapt_tensor(name, tensor, shape, image_size)
            except CheckpointError as error:
                raise CheckpointError(f"{source} does not fit {type(model).__name__}: {name}: {error}") from error
            adapted[name] = tensor if resized is None else resized
    return adapted, remarks


def _channels(model: Backbone, shape: tuple[int, ...], tensor: Tensor) -> int | None:
    """Channels of the images of a checkpoint's kernel, where it differs from ours in nothing else; else None."""
    theirs, in_chans = tuple(tensor.shape), model.config.in_chans
    fits = len(shape) == len(theirs) == 4 and shape[1] == in_chans and theirs == (shape[0], theirs[1], *shape[2:])
    return theirs[1] if fits else None


def _with_channels(kernel: Tensor, in_chans: int) -> Tensor:
    """timm's rule: a grey image is one whose three channels are equal; more channels share the sum of the weights."""
    exact = kernel.to(torch.promote_types(kernel.dtype, torch.float32))
    if in_chans == 1:
        return exact.sum(1, keepdim=True).to(kernel.dtype)
    repeated = exact.repeat(1, -(-in_chans // RGB), 1, 1)[:, :in_chans]
    return (repeated * (RGB / in_chans)).to(kernel.dtype)


def remedy_of(model: Backbone, state: Mapping[str, Tensor], *, only_head: bool) -> str:
    """How the error of a checkpoint that does not fit ends.

    Args:
        model: has other names or shapes.
        state: our names -> tensors.
        only_head: whether it differs in the classifier alone.
    """
    target = model.state_dict()
    if 2 * len(target.keys() & state.keys()) < len(target):
        return "is it another model's?"
    fields = model.fields_in({name: tuple(tensor.shape) for name, tensor in state.items()})
    extra = {
        name for name in state.keys() - target.keys() if not ("head_dist" in name and "distillation_token" in fields)
    }
    parts = sorted({what for mark, what in FOREIGN.items() for name in extra if mark in name})
    if parts:
        return f"the weights have {' and '.join(parts)}, which {type(model).__name__} lacks; take others"
    shapes = {name: tuple(tensor.shape) for name, tensor in target.items()}
    channels = {_channels(model, shapes[name], tensor) for name, tensor in state.items() if name in target}
    if other := channels - {None, model.config.in_chans}:
        fields["in_chans"] = other.pop()
    if not fields:
        return HEAD_REMEDY if only_head else "is it another model's?"
    wanted = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"build the model with {wanted} (in training: model_fields of a --config file)"
