"""ViTAE's cells once more, slowly, from weights under the authors' names; nothing of Vitrail is used here."""

from __future__ import annotations

from itertools import product
from math import ceil

import torch
import torch.nn.functional as F
from models.naive_revit import Shapes, State, gelu, heads_of, linear, linear_shapes, mlp, norm, norm_shapes
from torch import Tensor


def conv_shapes(name: str, in_dim: int, out_dim: int, kernel: int = 3, groups: int = 1) -> Shapes:
    return {f"{name}.weight": (out_dim, in_dim // groups, kernel, kernel), f"{name}.bias": (out_dim,)}


def batch_norm_shapes(name: str, dim: int) -> Shapes:
    return norm_shapes(name, dim) | {
        f"{name}.running_mean": (dim,),
        f"{name}.running_var": (dim,),
        f"{name}.num_batches_tracked": (),
    }


def conv(state: State, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    return F.conv2d(x[None], state[f"{name}.weight"], state[f"{name}.bias"], stride, 1, groups=groups)[0]


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + 1e-5).sqrt()
    return (x - state[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][
        :, None, None
    ]


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def full_attention(state: State, name: str, tokens: Tensor, num_heads: int) -> Tensor:
    """Attended tokens before the projection."""
    heads = heads_of(linear(state, f"{name}.qkv", tokens), num_heads)
    return torch.cat([(q @ k.T / q.shape[1] ** 0.5).softmax(-1) @ v for q, k, v in heads], -1)


def padded_window_attention(state: State, name: str, x: Tensor, num_heads: int, m: int, bias: Tensor | None) -> Tensor:
    """(h, w, c) in windows of m x m; tokens beyond the edge are zeros, half of them before (the odd one after)."""
    height, width = x.shape[:2]
    top, left = ((ceil(side / m) * m - side) // 2 for side in (height, width))
    out_dim = state[f"{name}.proj.weight"].shape[0]
    out = x.new_zeros(height, width, out_dim)
    for row, column in product(range(-top, height, m), range(-left, width, m)):
        places = list(product(range(row, row + m), range(column, column + m)))
        inside = [0 <= r < height and 0 <= c < width for r, c in places]
        zero = x.new_zeros(x.shape[2])
        tokens = torch.stack([x[r, c] if ok else zero for (r, c), ok in zip(places, inside, strict=True)])
        attended = []
        for head, (q, k, v) in enumerate(heads_of(linear(state, f"{name}.qkv", tokens), num_heads)):
            logits = q @ k.T / q.shape[1] ** 0.5
            attended.append((logits if bias is None else logits + bias[head]).softmax(-1) @ v)
        projected = linear(state, f"{name}.proj", torch.cat(attended, -1))
        for (r, c), ok, value in zip(places, inside, projected, strict=True):
            if ok:
                out[r, c] = value
    return out


def pyramid(state: State, name: str, x: Tensor, kernel: int, stride: int, dilations: tuple[int, ...]) -> Tensor:
    maps = []
    for j, d in enumerate(dilations):
        weight, bias = state[f"{name}.convs.{j}.0.weight"], state[f"{name}.convs.{j}.0.bias"]
        padding = ceil(((kernel - 1) * d + 1 - stride) / 2)
        maps.append(gelu(F.conv2d(x[None], weight, bias, stride, padding, d)[0]))
    return torch.cat(maps)


# ViTAEv2 -------------------------------------------------------------------------------------------------------------


def vitaev2_shapes(config) -> Shapes:
    shapes: Shapes = {}
    in_dim = 3
    for s, dim in enumerate(config.embed_dims):
        r, e, g = f"layers.{s}.RC", config.reduction_dims[s], config.reduction_groups[s]
        wide = e * len(config.dilations[s])
        for place, (a, b) in zip((0, 3, 6), ((in_dim, e), (e, e), (e, dim)), strict=True):
            shapes |= conv_shapes(f"{r}.PCM.{place}", a, b, groups=g)
        shapes |= batch_norm_shapes(f"{r}.PCM.1", e) | batch_norm_shapes(f"{r}.PCM.4", e)
        for j in range(len(config.dilations[s])):
            shapes |= conv_shapes(f"{r}.PRM.convs.{j}.0", in_dim, e, config.kernel_sizes[s])
        shapes |= norm_shapes(f"{r}.attn.norm1", wide) | {f"{r}.attn.attn.qkv.weight": (3 * dim, wide)}
        windowed = config.token_mixers[s] == "window"
        if windowed:
            shapes |= {f"{r}.attn.attn.qkv.bias": (3 * dim,)}
        shapes |= linear_shapes(f"{r}.attn.attn.proj", dim, dim) | norm_shapes(f"{r}.attn.norm2", dim)
        shapes |= linear_shapes(f"{r}.attn.mlp.fc1", dim, dim) | linear_shapes(f"{r}.attn.mlp.fc2", dim, dim)
        mixers = {f"{r}.attn.attn": config.reduction_heads[s]}
        for i in range(config.depths[s]):
            n, hidden = f"layers.{s}.NC.{i}", int(dim * config.mlp_ratio)
            shapes |= norm_shapes(f"{n}.norm1", dim) | linear_shapes(f"{n}.attn.qkv", dim, 3 * dim)
            shapes |= linear_shapes(f"{n}.attn.proj", dim, dim) | norm_shapes(f"{n}.norm2", dim)
            shapes |= linear_shapes(f"{n}.mlp.fc1", dim, hidden) | linear_shapes(f"{n}.mlp.fc2", hidden, dim)
            shapes |= conv_shapes(f"{n}.PCM.0", dim, hidden, groups=config.conv_groups[s])
            shapes |= conv_shapes(f"{n}.PCM.3", hidden, dim, groups=config.conv_groups[s])
            shapes |= conv_shapes(f"{n}.PCM.6", dim, dim, groups=config.conv_groups[s])
            shapes |= batch_norm_shapes(f"{n}.PCM.1", hidden) | batch_norm_shapes(f"{n}.PCM.4", dim)
            mixers[f"{n}.attn"] = config.num_heads[s]
        if windowed and config.rel_pos_bias:
            rows = (2 * config.window_size - 1) ** 2
            shapes |= {f"{mixer}.relative_position_bias_table": (rows, heads) for mixer, heads in mixers.items()}
        in_dim = dim
    return shapes | linear_shapes("head", config.embed_dims[-1], config.num_classes)


def v2_branch(state: State, name: str, x: Tensor, strides: tuple[int, ...], groups: int) -> Tensor:
    x = silu(batch_norm(state, f"{name}.1", conv(state, f"{name}.0", x, strides[0], groups)))
    x = silu(batch_norm(state, f"{name}.4", conv(state, f"{name}.3", x, strides[1], groups)))
    return conv(state, f"{name}.6", x, strides[2], groups)


def v2_mix(state: State, name: str, x: Tensor, heads: int, config, stage: int, value_skip: bool) -> Tensor:
    """The token mixer of either cell on (h, w, c)."""
    if config.token_mixers[stage] == "window":
        table = state.get(f"{name}.relative_position_bias_table")
        bias = None if table is None else _bias(table, config.window_size)
        return padded_window_attention(state, name, x, heads, config.window_size, bias)
    tokens = x.flatten(0, 1)
    out = linear(state, f"{name}.proj", full_attention(state, name, tokens, heads))
    if value_skip:
        out = out + linear(state, f"{name}.qkv", tokens).chunk(3, -1)[2]
    return out.unflatten(0, x.shape[:2])


def _bias(table: Tensor, m: int) -> Tensor:
    places = list(product(range(m), range(m)))
    rows = [[(a - c + m - 1) * (2 * m - 1) + b - d + m - 1 for c, d in places] for a, b in places]
    return table[torch.tensor(rows)].permute(2, 0, 1)


def vitaev2(state: State, config, x: Tensor) -> Tensor:
    """Logits of one image."""
    for s, depth in enumerate(config.depths):
        r, stride = f"layers.{s}.RC", config.strides[s]
        strides = (2, 2, 1) if stride == 4 else (2, 1, 1)
        t = pyramid(state, f"{r}.PRM", x, config.kernel_sizes[s], stride, config.dilations[s]).permute(1, 2, 0)
        t = norm(state, f"{r}.attn.norm1", t, 1e-5)
        t = v2_mix(state, f"{r}.attn.attn", t, config.reduction_heads[s], config, s, value_skip=True)
        t = t + v2_branch(state, f"{r}.PCM", x, strides, config.reduction_groups[s]).permute(1, 2, 0)
        x = t + mlp(state, f"{r}.attn.mlp", norm(state, f"{r}.attn.norm2", t, 1e-5))
        for i in range(depth):
            n = f"layers.{s}.NC.{i}"
            local = v2_branch(state, f"{n}.PCM", x.permute(2, 0, 1), (1, 1, 1), config.conv_groups[s])
            u = norm(state, f"{n}.norm1", x, 1e-6)
            x = x + v2_mix(state, f"{n}.attn", u, config.num_heads[s], config, s, value_skip=False)
            x = x + local.permute(1, 2, 0)
            x = x + mlp(state, f"{n}.mlp", norm(state, f"{n}.norm2", x, 1e-6))
        x = x.permute(2, 0, 1)
    return linear(state, "head", x.mean((1, 2)))


# ViTAE-B, L and H ----------------------------------------------------------------------------------------------------


def plain_shapes(config) -> Shapes:
    dim, hidden, p = config.embed_dim, int(config.embed_dim * config.mlp_ratio), config.patch_size
    tokens = (config.image_size[0] // p) * (config.image_size[1] // p)
    shapes = conv_shapes("layers.0.RC.PRM.proj", 3, dim, p)
    shapes |= {"layers.0.RC.cls_token": (1, 1, dim), "layers.0.RC.pos_embed": (1, tokens + 1, dim)}
    for i in range(config.depth):
        n = f"layers.2.NC.{i}"
        shapes |= norm_shapes(f"{n}.norm1", dim) | linear_shapes(f"{n}.attn.qkv", dim, 3 * dim)
        shapes |= linear_shapes(f"{n}.attn.proj", dim, dim) | norm_shapes(f"{n}.norm2", dim)
        shapes |= linear_shapes(f"{n}.mlp.fc1", dim, hidden) | linear_shapes(f"{n}.mlp.fc2", hidden, dim)
        shapes |= conv_shapes(f"{n}.PCM.0", dim, hidden, groups=config.conv_groups) | batch_norm_shapes(
            f"{n}.PCM.1", hidden
        )
        shapes |= conv_shapes(f"{n}.PCM.3", hidden, dim, groups=config.conv_groups)
    return shapes | norm_shapes("fc_norm", dim) | linear_shapes("head", dim, config.num_classes)


def plain(state: State, config, image: Tensor) -> Tensor:
    """Logits of one image."""
    proj = "layers.0.RC.PRM.proj"
    x = F.conv2d(image[None], state[f"{proj}.weight"], state[f"{proj}.bias"], config.patch_size)[0]
    grid = x.shape[1:]
    x = torch.cat([state["layers.0.RC.cls_token"][0], x.flatten(1).T]) + state["layers.0.RC.pos_embed"][0]
    for i in range(config.depth):
        n = f"layers.2.NC.{i}"
        local = conv(state, f"{n}.PCM.0", x[1:].T.unflatten(1, grid), groups=config.conv_groups)
        local = conv(state, f"{n}.PCM.3", silu(batch_norm(state, f"{n}.PCM.1", local)), groups=config.conv_groups)
        attended = full_attention(state, f"{n}.attn", norm(state, f"{n}.norm1", x, 1e-6), config.num_heads)
        x = x + linear(state, f"{n}.attn.proj", attended)
        x[1:] += local.flatten(1).T
        x = x + mlp(state, f"{n}.mlp", norm(state, f"{n}.norm2", x, 1e-6))
    return linear(state, "head", norm(state, "fc_norm", x[1:].mean(0), 1e-6))
