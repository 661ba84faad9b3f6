"""Tables of positions for other image sizes, by the rules of timm."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitrail.core.types import ImageSize


def resized_positions(
    patch_embed: Any, image_size: ImageSize, tensor: Tensor, shape: tuple[int, ...], old_size: ImageSize | None
) -> Tensor:
    """A table of absolute positions (1, n, d) with ``shape``.

    Args:
        patch_embed: the network's; its grid is the new one.
        image_size: (height, width) in pixels that the network is built for.
        tensor: table of the checkpoint.
        shape: shape of the network's table.
        old_size: (height, width) in pixels that the table was made for; None where that is unknown.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed

    grid = patch_embed.grid_size
    prefix = shape[1] - grid[0] * grid[1]
    stride = image_size[0] // grid[0]
    old = None if old_size is None else [side // stride for side in old_size]
    if old is not None and old[0] * old[1] + prefix != tensor.shape[1]:
        old = None
    resized: Tensor = resample_abs_pos_embed(tensor, list(grid), old_size=old, num_prefix_tokens=prefix)
    return resized


def resized_bias(attention: Any, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A table of relative positions (n, heads) with ``shape``, that of a module with a ``window_size``."""
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

    resized: Tensor = resize_rel_pos_bias_table(tensor, new_window_size=attention.window_size, new_bias_shape=shape)
    return resized
