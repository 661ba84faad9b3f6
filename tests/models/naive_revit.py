"""ReViT, ReSwin and ReMViT once more, slowly: head by head, window by window, from weights under the authors' names.

Nothing of Vitrail is used here, so that agreement means something.
"""

from __future__ import annotations

from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def linear_shapes(name: str, in_dim: int, out_dim: int) -> Shapes:
    return {f"{name}.weight": (out_dim, in_dim), f"{name}.bias": (out_dim,)}


def norm_shapes(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def linear(state: State, name: str, x: Tensor) -> Tensor:
    out = x @ state[f"{name}.weight"].T
    return out + state[f"{name}.bias"] if f"{name}.bias" in state else out


def norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * state[f"{name}.weight"]
        + state[f"{name}.bias"]
    )


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def mlp(state: State, name: str, x: Tensor) -> Tensor:
    return linear(state, f"{name}.fc2", gelu(linear(state, f"{name}.fc1", x)))


def heads_of(joint: Tensor, num_heads: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(q, k, v) of every head from one image's joint projection (n, 3 c)."""
    parts = joint.chunk(3, -1)
    return list(zip(*(part.chunk(num_heads, -1) for part in parts), strict=True))


# ReViT ---------------------------------------------------------------------------------------------------------------


def revit_shapes(config, class_token: bool, alpha: bool) -> Shapes:
    dim, tokens = config.embed_dim, prod(side // config.patch_size for side in config.image_size)
    shapes: Shapes = {"alpha": (1,)} if alpha else {}
    if class_token:
        shapes["cls_token"] = (1, 1, dim)
    shapes["pos_embed"] = (1, tokens + class_token, dim)
    shapes |= {
        "patch_embed.proj.weight": (dim, 3, config.patch_size, config.patch_size),
        "patch_embed.proj.bias": (dim,),
    }
    for i in range(config.depth):
        b = f"blocks.{i}"
        shapes |= norm_shapes(f"{b}.norm1", dim) | linear_shapes(f"{b}.attn.qkv", dim, 3 * dim)
        shapes |= linear_shapes(f"{b}.attn.proj", dim, dim) | norm_shapes(f"{b}.norm2", dim)
        shapes |= linear_shapes(f"{b}.mlp.fc1", dim, 4 * dim) | linear_shapes(f"{b}.mlp.fc2", 4 * dim, dim)
    return shapes | norm_shapes("norm", dim) | linear_shapes("head.projection", dim, config.num_classes)


def revit(state: State, config, image: Tensor) -> Tensor:
    """Logits of one image."""
    p, alpha = config.patch_size, state.get("alpha", torch.tensor(0.5)).item()
    weight = state["patch_embed.proj.weight"].flatten(1)
    rows, columns = (side // p for side in config.image_size)
    patches = [
        image[:, p * r : p * r + p, p * c : p * c + p].flatten() for r, c in product(range(rows), range(columns))
    ]
    x = torch.stack(patches) @ weight.T + state["patch_embed.proj.bias"]
    if "cls_token" in state:
        x = torch.cat([state["cls_token"][0], x])
    x = x + state["pos_embed"][0]
    carried: list[Tensor] = []
    for i in range(config.depth):
        b = f"blocks.{i}"
        outs, mixed = [], []
        joint = linear(state, f"{b}.attn.qkv", norm(state, f"{b}.norm1", x, 1e-6))
        for head, (q, k, v) in enumerate(heads_of(joint, config.num_heads)):
            logits = q @ k.T / q.shape[1] ** 0.5
            if carried:
                logits = alpha * logits + (1 - alpha) * carried[head]
            mixed.append(logits)
            outs.append(logits.softmax(-1) @ v)
        carried = mixed
        x = x + linear(state, f"{b}.attn.proj", torch.cat(outs, -1))
        x = x + mlp(state, f"{b}.mlp", norm(state, f"{b}.norm2", x, 1e-6))
    x = norm(state, "norm", x, 1e-6)
    return linear(state, "head.projection", x[0] if "cls_token" in state else x.mean(0))


# ReSwin --------------------------------------------------------------------------------------------------------------


def reswin_shapes(config) -> Shapes:
    dims, p = config.embed_dims, config.patch_size
    shapes: Shapes = {"patch_embed.proj.weight": (dims[0], 3, p, p), "patch_embed.proj.bias": (dims[0],)}
    shapes |= norm_shapes("patch_embed.norm", dims[0])
    for s, dim in enumerate(dims):
        for i in range(config.depths[s]):
            b = f"layers.{s}.blocks.{i}"
            table = ((2 * config.window_size - 1) ** 2, config.num_heads[s])
            shapes |= norm_shapes(f"{b}.norm1", dim) | {f"{b}.attn.relative_position_bias_table": table}
            shapes |= linear_shapes(f"{b}.attn.qkv", dim, 3 * dim) | linear_shapes(f"{b}.attn.proj", dim, dim)
            shapes |= norm_shapes(f"{b}.norm2", dim)
            shapes |= linear_shapes(f"{b}.mlp.fc1", dim, 4 * dim) | linear_shapes(f"{b}.mlp.fc2", 4 * dim, dim)
        if s + 1 < len(dims):
            shapes |= norm_shapes(f"layers.{s}.downsample.norm", 4 * dim)
            shapes |= {f"layers.{s}.downsample.reduction.weight": (dims[s + 1], 4 * dim)}
    return shapes | norm_shapes("norm", dims[-1]) | linear_shapes("head", dims[-1], config.num_classes)


def window_bias(table: Tensor, m: int) -> Tensor:
    """(heads, m^2, m^2) from the table, pair by pair."""
    places = list(product(range(m), range(m)))
    bias = torch.zeros(table.shape[1], m * m, m * m, dtype=table.dtype)
    for (i, (qr, qc)), (j, (kr, kc)) in product(enumerate(places), enumerate(places)):
        bias[:, i, j] = table[(qr - kr + m - 1) * (2 * m - 1) + (qc - kc + m - 1)]
    return bias


def reswin_windows(height: int, width: int, m: int, shift: int) -> list[list[tuple[int, int]]]:
    """Places of the unrolled map that every window holds, in its order."""
    windows = []
    for top, left in product(range(0, height, m), range(0, width, m)):
        inside = product(range(top, top + m), range(left, left + m))
        windows.append([((r + shift) % height, (c + shift) % width) for r, c in inside])
    return windows


def torn(window: list[tuple[int, int]], m: int) -> Tensor:
    """Which pairs of a window are no neighbours in the unrolled map: only one of them was rolled around the edge."""
    mask = torch.zeros(len(window), len(window), dtype=torch.bool)
    for (i, a), (j, b) in product(enumerate(window), enumerate(window)):
        mask[i, j] = abs(a[0] - b[0]) >= m or abs(a[1] - b[1]) >= m
    return mask


def reswin_attention(
    state: State, name: str, x: Tensor, heads: int, m: int, shift: int, carried: list[Tensor] | None, alpha: float
) -> tuple[Tensor, list[Tensor]]:
    """The attended map (h, w, c) and the mixed logits, window by window and head by head."""
    bias = window_bias(state[f"{name}.relative_position_bias_table"], m)
    out, mixed = torch.zeros_like(x), []
    windows = reswin_windows(*x.shape[:2], m, shift)
    for index, window in enumerate(windows):
        rows, columns = torch.tensor(window).T
        attended = []
        for head, (q, k, v) in enumerate(heads_of(linear(state, f"{name}.qkv", x[rows, columns]), heads)):
            logits = q @ k.T / q.shape[1] ** 0.5 + bias[head]
            if carried is not None:
                place = index * heads + head
                logits = alpha * logits + (1 - alpha) * carried[place * len(carried) // (len(windows) * heads)]
            mixed.append(logits)
            attended.append((logits - 100.0 * torn(window, m)).softmax(-1) @ v)
        out[rows, columns] = linear(state, f"{name}.proj", torch.cat(attended, -1))
    return out, mixed


def reswin(state: State, config, image: Tensor) -> Tensor:
    """Logits of one image."""
    alpha, m = state.get("alpha", torch.tensor(0.5)).item(), config.window_size
    x = F.conv2d(
        image[None], state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=config.patch_size
    )
    x = norm(state, "patch_embed.norm", x[0].permute(1, 2, 0), 1e-5)
    carried = None
    for s, depth in enumerate(config.depths):
        for i in range(depth):
            b = f"layers.{s}.blocks.{i}"
            shift = m // 2 if i % 2 and min(x.shape[:2]) > m else 0
            u = norm(state, f"{b}.norm1", x, 1e-5)
            out, carried = reswin_attention(state, f"{b}.attn", u, config.num_heads[s], m, shift, carried, alpha)
            x = x + out
            x = x + mlp(state, f"{b}.mlp", norm(state, f"{b}.norm2", x, 1e-5))
        if s + 1 < len(config.depths):
            x = torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], -1)
            x = linear(state, f"layers.{s}.downsample.reduction", norm(state, f"layers.{s}.downsample.norm", x, 1e-5))
    return linear(state, "head", norm(state, "norm", x, 1e-5).mean((0, 1)))


# ReMViT --------------------------------------------------------------------------------------------------------------


def remvit_blocks(config) -> list[dict]:
    """Widths, strides and input map of every block, by the rule of the authors' configuration."""
    starts = [sum(config.depths[:s]) for s in range(1, len(config.depths))]
    grid = [side // config.patch_stride for side in config.image_size]
    blocks, dim, stride_kv, heads = [], config.embed_dims[0], config.stride_kv, config.embed_dims[0] // config.head_dim
    for i in range(sum(config.depths)):
        stride_q, factor = (2, 2) if i in starts else (1, 1)
        heads, stride_kv = heads * factor, max(stride_kv // stride_q, 1)
        blocks.append(
            {"dim": dim, "out": dim * factor, "heads": heads, "q": stride_q, "kv": stride_kv, "grid": tuple(grid)}
        )
        dim, grid = dim * factor, [side // stride_q for side in grid]
    return blocks


def remvit_shapes(config) -> Shapes:
    dim, kernel, d = config.embed_dims[0], config.patch_kernel, config.head_dim
    shapes: Shapes = {
        "alpha": (1,),
        "patch_embed.proj.weight": (dim, 3, kernel, kernel),
        "patch_embed.proj.bias": (dim,),
    }
    for i, block in enumerate(remvit_blocks(config)):
        b, out = f"blocks.{i}", block["out"]
        shapes |= norm_shapes(f"{b}.norm1", block["dim"])
        for axis, side in zip("hw", block["grid"], strict=True):
            shapes |= {f"{b}.attn.rel_pos_{axis}": (2 * max(side // block["q"], side // block["kv"]) - 1, d)}
        shapes |= linear_shapes(f"{b}.attn.qkv", block["dim"], 3 * out) | linear_shapes(f"{b}.attn.proj", out, out)
        for name in "qkv":
            shapes |= {f"{b}.attn.pool_{name}.weight": (d, 1, 3, 3)} | norm_shapes(f"{b}.attn.norm_{name}", d)
        shapes |= norm_shapes(f"{b}.norm2", out)
        shapes |= linear_shapes(f"{b}.mlp.fc1", out, 4 * out) | linear_shapes(f"{b}.mlp.fc2", 4 * out, out)
        if block["dim"] != out:
            shapes |= linear_shapes(f"{b}.proj", block["dim"], out)
    return (
        shapes
        | norm_shapes("norm", config.embed_dims[-1])
        | linear_shapes("head.projection", config.embed_dims[-1], config.num_classes)
    )


def pooled(state: State, name: str, which: str, x: Tensor, stride: int) -> Tensor:
    """One head's map (h, w, d), thinned out and normed."""
    weight = state[f"{name}.pool_{which}.weight"]
    out = F.conv2d(x.permute(2, 0, 1)[None], weight, stride=stride, padding=1, groups=x.shape[-1])[0]
    return norm(state, f"{name}.norm_{which}", out.permute(1, 2, 0), 1e-6)


def axis_bias(q: Tensor, table: Tensor, keys: int) -> Tensor:
    """(queries, keys) along one axis: q (queries, anything, d) with the table's row of every distance."""
    count = q.shape[0]
    bias = q.new_zeros(count, q.shape[1], keys)
    for y, ky in product(range(count), range(keys)):
        row = int(y * max(keys / count, 1) - ky * max(count / keys, 1) + (keys - 1) * max(count / keys, 1))
        bias[y, :, ky] = q[y] @ table[row]
    return bias


def fitted(carried: Tensor, heads: int, query_grid: tuple, key_grid: tuple) -> Tensor:
    """Carried (heads, hq, wq, hk, wk) for another block: mean over heads, pooled or repeated maps."""
    if carried.shape[0] != heads:
        carried = carried.mean(0, keepdim=True).expand(heads, -1, -1, -1, -1)
    n, hq, wq, hk, wk = carried.shape
    if hq > query_grid[0]:
        maps = carried.permute(0, 3, 4, 1, 2).reshape(1, n * hk * wk, hq, wq)
        maps = F.avg_pool2d(maps, (hq // query_grid[0], wq // query_grid[1]))
        carried = maps.reshape(n, hk, wk, *query_grid).permute(0, 3, 4, 1, 2)
    maps = carried.reshape(1, -1, hk, wk)
    if hk > key_grid[0]:
        maps = F.avg_pool2d(maps, (hk // key_grid[0], wk // key_grid[1]))
    elif hk < key_grid[0]:
        maps = maps.repeat_interleave(key_grid[0] // hk, 2).repeat_interleave(key_grid[1] // wk, 3)
    return maps.reshape(n, *query_grid, *key_grid)


def remvit_attention(
    state: State, name: str, block: dict, x: Tensor, carried: Tensor | None, alpha: float
) -> tuple[Tensor, Tensor]:
    """The attended map and the logits that are carried on, (heads, hq, wq, hk, wk)."""
    joint = linear(state, f"{name}.qkv", x)
    outs, mixed = [], []
    for head, (q, k, v) in enumerate(heads_of(joint, block["heads"])):
        q, k, v = (
            pooled(state, name, w, t, block["q" if w == "q" else "kv"]) for w, t in zip("qkv", (q, k, v), strict=True)
        )
        logits = torch.einsum("yxd,hwd->yxhw", q, k) / q.shape[-1] ** 0.5
        if carried is not None:
            logits = alpha * logits + (1 - alpha) * fitted(carried, block["heads"], q.shape[:2], k.shape[:2])[head]
        rows = axis_bias(q, state[f"{name}.rel_pos_h"], k.shape[0])
        columns = axis_bias(q.transpose(0, 1), state[f"{name}.rel_pos_w"], k.shape[1]).transpose(0, 1)
        logits = logits + rows[..., None] + columns[..., None, :]
        mixed.append(logits)
        weights = logits.flatten(2).softmax(-1)
        outs.append(weights @ v.flatten(0, 1) + q)
    return linear(state, f"{name}.proj", torch.cat(outs, -1)), torch.stack(mixed)


def remvit(state: State, config, image: Tensor) -> Tensor:
    """Logits of one image."""
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = F.conv2d(image[None], weight, bias, stride=config.patch_stride, padding=config.patch_kernel // 2)
    x = x[0].permute(1, 2, 0)
    carried = None
    for i, block in enumerate(remvit_blocks(config)):
        b = f"blocks.{i}"
        u = norm(state, f"{b}.norm1", x, 1e-6)
        out, carried = remvit_attention(state, f"{b}.attn", block, u, carried, state["alpha"].item())
        if f"{b}.proj.weight" in state:
            x = linear(state, f"{b}.proj", u)
        if block["q"] > 1:
            x = F.max_pool2d(x.permute(2, 0, 1)[None], 3, 2, 1)[0].permute(1, 2, 0)
        x = x + out
        x = x + mlp(state, f"{b}.mlp", norm(state, f"{b}.norm2", x, 1e-6))
    return linear(state, "head.projection", norm(state, "norm", x, 1e-6).mean((0, 1)))
