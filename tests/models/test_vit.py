"""ViT's options: positions, axial blocks, hybrids, and the authors' own files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill
from torch import Tensor

from vitrail import create_model, load_checkpoint
from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.layers import RelativeAttention, resize_pos_embed
from vitrail.layers.attention import split_qkv
from vitrail.models import Backbone, family_of
from vitrail.models.checkpoint import load_state

timm = pytest.importorskip("timm")

NANO = {"num_classes": 5, "image_size": (24, 32), "depth": 2, "embed_dim": 32, "num_heads": 2}


def nano(**fields: object) -> Backbone:
    return create_model("vit_nano_patch4", **(NANO | fields)).double().eval()


def images(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, dtype=torch.float64)


@pytest.mark.parametrize(
    ("reference", "name", "size", "options"),
    [
        ("vit_small_r26_s32_224", "vit_small_r26_s32", (96, 64), {}),
        pytest.param("vit_base_r50_s16_224", "vit_base_r50_s16", (48, 64), {}, marks=pytest.mark.slow),
        ("vit_small_patch32_224", "vit_small_patch32", (64, 96), {}),
        ("vit_small_patch8_224", "vit_small_patch8", (32, 24), {}),
        ("vit_tiny_patch16_224", "vit_tiny_patch16", (64, 32), {"global_pool": "avg"}),
    ],
)
def test_other_variants_equal_timm(reference: str, name: str, size: tuple[int, int], options: dict) -> None:
    theirs = timm.create_model(reference, img_size=size, num_classes=7, **options).double().eval()
    state = {key: torch.from_numpy(fill(key, value.shape)).double() for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    ours = create_model(name, num_classes=7, image_size=size, **dict.fromkeys(options, "avg_fc_norm")).double().eval()
    assert load_state(ours, state, family_of(ours).checkpoint_keys) == "timm"
    x = images(*size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)


def _to_jax(state: dict[str, Tensor], num_heads: int) -> dict[str, np.ndarray]:
    """A timm ViT's tensors as google-research/vision_transformer names and shapes them, written out key by key."""
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    depth = sum(name.endswith("norm1.weight") and name.startswith("blocks.") for name in state)
    for i in range(depth):
        theirs, block = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        for jax_norm, norm in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            arrays[f"{theirs}/{jax_norm}/scale"] = state[f"{block}.{norm}.weight"]
            arrays[f"{theirs}/{jax_norm}/bias"] = state[f"{block}.{norm}.bias"]
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        weights, biases = (state[f"{block}.attn.qkv.{kind}"].chunk(3) for kind in ("weight", "bias"))
        for role, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{attention}/{role}/kernel"] = weight.T.unflatten(1, (num_heads, -1))
            arrays[f"{attention}/{role}/bias"] = bias.unflatten(0, (num_heads, -1))
        arrays[f"{attention}/out/kernel"] = state[f"{block}.attn.proj.weight"].T.unflatten(0, (num_heads, -1))
        arrays[f"{attention}/out/bias"] = state[f"{block}.attn.proj.bias"]
        for n in (0, 1):
            arrays[f"{theirs}/MlpBlock_3/Dense_{n}/kernel"] = state[f"{block}.mlp.fc{n + 1}.weight"].T
            arrays[f"{theirs}/MlpBlock_3/Dense_{n}/bias"] = state[f"{block}.mlp.fc{n + 1}.bias"]
    backbone = "patch_embed.backbone"
    for name, tensor in state.items():
        if name.startswith(f"{backbone}.stem."):
            _, kind, leaf = name.removeprefix(f"{backbone}.").split(".")
            arrays["conv_root/kernel" if kind == "conv" else f"gn_root/{'scale' if leaf == 'weight' else 'bias'}"] = (
                tensor.permute(2, 3, 1, 0) if kind == "conv" else tensor
            )
        elif name.startswith(f"{backbone}.stages."):
            _, stage, _, unit, *rest = name.removeprefix(f"{backbone}.").split(".")
            prefix = f"block{int(stage) + 1}/unit{int(unit) + 1}"
            part = rest[-2]
            number = "_proj" if rest[0] == "downsample" else part[-1]
            if part.startswith("conv"):
                arrays[f"{prefix}/conv{number}/kernel"] = tensor.permute(2, 3, 1, 0)
            else:  # old files keep the norms' vectors as (1, 1, 1, channels)
                leaf = "scale" if rest[-1] == "weight" else "bias"
                arrays[f"{prefix}/gn{number}/{leaf}"] = tensor.view(1, 1, 1, -1)
    return {name: tensor.float().numpy() for name, tensor in arrays.items()}


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
@pytest.mark.parametrize(
    ("reference", "name", "size"),
    [("vit_tiny_patch16_224", "vit_tiny_patch16", 32), ("vit_small_r26_s32_224", "vit_small_r26_s32", 64)],
)
def test_npz_files_of_the_authors(tmp_path: Path, reference: str, name: str, size: int, prefix: str) -> None:
    theirs = timm.create_model(reference, img_size=size, num_classes=7).eval()
    state = {key: torch.from_numpy(fill(key, value.shape)) for key, value in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    heads = theirs.blocks[0].attn.num_heads
    np.savez(tmp_path / "w.npz", **{prefix + key: value for key, value in _to_jax(state, heads).items()})
    ours = create_model(name, num_classes=7, image_size=size).eval()
    assert load_checkpoint(ours, tmp_path / "w.npz") == "jax"
    x = images(size, size).float()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_npz_files_with_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", cls=np.array([{}], dtype=object))
    with pytest.raises(CheckpointError, match=r"w.npz is damaged"):
        load_checkpoint(nano(), tmp_path / "w.npz")
    (tmp_path / "short.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"short.npz is damaged"):
        load_checkpoint(nano(), tmp_path / "short.npz")


def test_the_authors_gelu_is_the_tanh_approximation() -> None:
    block = nano(act="gelu_tanh").blocks[0]
    x = torch.randn(4, dtype=torch.float64)
    expected = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(block.mlp.act(x), expected)


@pytest.mark.parametrize("pos_embed", ["learned_1d", "learned_2d", "sincos_2d", "relative"])
@pytest.mark.parametrize("class_token", [True, False])
def test_positions_break_the_symmetry_of_patches(pos_embed: str, class_token: bool) -> None:
    """Without positions a transformer cannot tell in which order it got its patches; with them it can."""
    pool = {} if class_token else {"global_pool": "avg"}
    x = images(24, 32)
    shuffled = torch.cat([x[..., 16:], x[..., :16]], -1)
    for kind, equal in (("none", True), (pos_embed, False)):
        model = nano(pos_embed=kind, class_token=class_token, **pool)
        for name, parameter in model.named_parameters():
            if "pos_embed" in name or "offset_keys" in name:
                torch.nn.init.normal_(parameter)
        with torch.no_grad():
            assert torch.allclose(model(x), model(shuffled), atol=1e-6) is equal, kind


def test_two_dimensional_positions_join_column_and_row() -> None:
    embed = nano(pos_embed="learned_2d").pos_embed
    added = embed(torch.zeros(1, 6 * 8 + 1, 32, dtype=torch.float64))[0]
    assert added[0].abs().max() == 0
    for row in range(6):
        for column in range(8):
            expected = torch.cat([embed.columns[column], embed.rows[row]])
            assert torch.equal(added[1 + row * 8 + column], expected)


def test_sines_and_cosines_at_a_known_place() -> None:
    embed = nano(pos_embed="sincos_2d").pos_embed
    added = embed(torch.zeros(1, 6 * 8 + 1, 32, dtype=torch.float64))[0]
    x, y, k = 5, 3, 2
    frequency = 1 / 10_000 ** (k / 7)
    expected = [math.sin(x * frequency), math.cos(x * frequency), math.sin(y * frequency), math.cos(y * frequency)]
    found = added[1 + y * 8 + x].view(4, 8)[:, k]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert "pos_embed.table" not in nano(pos_embed="sincos_2d").state_dict()


def test_relative_attention_equals_a_loop_over_pairs() -> None:
    n, heads, dim = 7, 2, 8
    mixer = RelativeAttention(dim, heads, n).double()
    torch.nn.init.normal_(mixer.offset_keys)
    x = torch.randn(2, n, dim, dtype=torch.float64)
    q, k, v = split_qkv(mixer.qkv(x), heads)
    logits = torch.empty(2, heads, n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            logits[..., i, j] = (q[..., i, :] * (k[..., j, :] + mixer.offset_keys[n - 1 + i - j])).sum(-1)
    expected = (logits / math.sqrt(dim / heads)).softmax(-1) @ v
    torch.testing.assert_close(mixer(x), mixer.proj(expected.transpose(1, 2).flatten(2)))


def test_axial_blocks_mix_rows_then_columns() -> None:
    model = nano(axial=True, class_token=False, global_pool="avg", depth=1)
    tokens = torch.randn(1, 48, 32, dtype=torch.float64)
    changed = tokens.clone()
    changed[0, 2 * 8 + 3] += torch.randn(32, dtype=torch.float64)  # row 2, column 3
    block = model.blocks[0]

    def touched(function: torch.nn.Module) -> list[tuple[int, int]]:
        grid = [t.unflatten(1, (6, 8)) for t in (tokens, changed)]
        return ((function(grid[0]) - function(grid[1])).abs().amax(-1)[0] > 1e-9).nonzero().tolist()

    with torch.no_grad():
        assert touched(block.row) == [[2, column] for column in range(8)]
        assert touched(block.column) == [[row, 3] for row in range(6)]
        assert len((block(tokens) - block(changed)).abs().amax(-1)[0].gt(1e-12).nonzero()) == 48


def test_axial_needs_a_map() -> None:
    with pytest.raises(ConfigError, match="class_token=False"):
        nano(axial=True)
    with pytest.raises(ConfigError, match="global_pool='token' needs class_token=True"):
        nano(class_token=False)


def test_tables_resize_as_the_authors_code_does() -> None:
    """scipy.ndimage.zoom of order 1, which the authors call, keeps the corners and is linear between grid points."""
    table = torch.randn(1, 1 + 36, 4, dtype=torch.float64)
    resized = resize_pos_embed(table, (9, 9), 1, "bilinear")
    old, places = table[0, 1:].view(6, 6, 4).numpy(), np.linspace(0, 5, 9)
    for channel in range(4):
        rows = np.stack([np.interp(places, range(6), row) for row in old[..., channel]])
        expected = np.stack([np.interp(places, range(6), column) for column in rows.T]).T
        np.testing.assert_allclose(resized[0, 1:].view(9, 9, 4)[..., channel].numpy(), expected, atol=1e-6)
    assert torch.equal(resized[:, 0], table[:, 0])


def test_the_resize_rule_is_chosen_by_the_config() -> None:
    state = nano(image_size=(32, 32)).state_dict()
    state["pos_embed.table"].normal_()
    tables = []
    for rule in ("bicubic", "bilinear"):
        model = nano(image_size=(48, 32), pos_embed_resize=rule)
        load_state(model, state, family_of(model).checkpoint_keys)
        tables.append(model.pos_embed.table.detach())
        expected = resize_pos_embed(state["pos_embed.table"], (12, 8), 1, rule)
        torch.testing.assert_close(tables[-1], expected)
    assert (tables[0] - tables[1]).abs().max() > 0.01


def test_pre_training_heads_have_a_tanh_layer() -> None:
    model = nano(pre_logits=True)
    features = torch.randn(2, 49, 32, dtype=torch.float64)
    expected = torch.tanh(features[:, 0] @ model.pre_logits[0].weight.T + model.pre_logits[0].bias)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), expected)
