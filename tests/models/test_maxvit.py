"""MaxViT: image sizes, windows, other people's weights, initialisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitrail import create_model
from vitrail.core.errors import CheckpointError, ConfigError, ImageSizeError
from vitrail.layers import BlockAttention, GridAttention, resize_bias_table
from vitrail.models import Backbone
from vitrail.models.checkpoint import load_state
from vitrail.models.maxvit import CHECKPOINT_KEYS
from vitrail.models.maxvit_checkpoints import from_tensorflow


def _meta(name: str, **fields: object) -> Backbone:
    with torch.device("meta"):
        return create_model(name, **fields)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("maxvit_tiny", 30_916_528),
        ("maxvit_small", 68_927_956),
        ("maxvit_base", 119_467_708),
        ("maxvit_large", 211_785_560),
        ("maxvit_xlarge", 474_951_952),
    ],
)
def test_variants_have_the_references_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in _meta(name).parameters()) == parameters


@pytest.mark.parametrize(("size", "window"), [(224, (7, 7)), (384, (12, 12)), (512, (16, 16)), ((256, 192), (8, 6))])
def test_windows_follow_the_image_size(size: int | tuple[int, int], window: tuple[int, int]) -> None:
    mixers = [
        m for m in _meta("maxvit_tiny", image_size=size).modules() if isinstance(m, BlockAttention | GridAttention)
    ]
    assert {mixer.size for mixer in mixers} == {window}
    assert len(mixers) == 22


def test_windows_and_grids_can_be_chosen() -> None:
    model = create_model("maxvit_nano", image_size=(64, 96), window_size=2, grid_size=(4, 2), num_classes=3).eval()
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, 3)
    with pytest.raises(ImageSizeError, match=r"multiples of 64 \(height\) and 32 \(width\)"):
        model(torch.randn(1, 3, 96, 96))
    with pytest.raises(ConfigError, match="window_size=0"):
        create_model("maxvit_nano", window_size=0)


def test_illegal_sizes_come_with_the_nearest_legal_ones() -> None:
    with pytest.raises(ImageSizeError, match=r"250x224 .* multiples of 32 .* 224x224 or 256x224$"):
        _meta("maxvit_tiny", image_size=(250, 224))
    model = _meta("maxvit_tiny")
    model.check_image_size(448, 224)
    with pytest.raises(
        ImageSizeError, match=r"multiples of 224 .* 224x224 or 448x448; or build .* image_size=\(256, 256"
    ):
        model.check_image_size(256, 256)
    with pytest.raises(ImageSizeError, match="0x0"):
        model.check_image_size(0, 0)


def test_tables_of_other_windows_are_resized_by_the_authors_rule() -> None:
    small, large = create_model("maxvit_nano"), create_model("maxvit_nano", image_size=96)
    load_state(large, small.state_dict(), CHECKPOINT_KEYS)
    name = "stages.1.blocks.0.grid_attention.token_mixer.bias_table"
    expected = resize_bias_table(small.state_dict()[name], (6, 6))
    assert expected.shape == (2, 11, 11)
    assert torch.equal(large.state_dict()[name], expected)


def test_initialisation_is_the_authors() -> None:
    model = create_model("maxvit_nano")
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
        elif parameter.numel() > 500 and parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name
    assert all(module.weight.eq(1).all() for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert model.no_weight_decay() == {name for name, _ in model.named_parameters() if "bias_table" in name}


def test_the_last_block_stays_below_the_drop_path_rate() -> None:
    model = create_model("maxvit_nano", drop_path_rate=0.4)
    rates = [block.mbconv.drop_path.p for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rates == [block.grid_attention.drop_path.p for stage in model.stages for block in stage.blocks]


def test_torchvisions_network_is_refused_as_another_one() -> None:
    state = {
        "blocks.0.layers.0.layers.MBconv.proj.1.weight": torch.zeros(64, 64, 1, 1),
        "stem.0.0.weight": torch.zeros(1),
    }
    with pytest.raises(CheckpointError, match=r"torchvision's maxvit_t, a different network"):
        load_state(_meta("maxvit_tiny"), state, CHECKPOINT_KEYS)


MBCONV = {
    "pre_norm": "pre_norm",
    "expand.conv": "expand_conv",
    "expand.norm": "expand_norm",
    "depthwise.conv": "depthwise_conv",
    "depthwise.norm": "depthwise_norm",
    "se.fc1": "se/reduce_conv2d",
    "se.fc2": "se/expand_conv2d",
    "project": "shrink_conv",
    "shortcut.proj": "shortcut_conv",
}
TOP = {
    "stem.conv1.conv": "stem/conv_0",
    "stem.conv1.norm": "stem/norm_0",
    "stem.conv2": "stem/conv_1",
    "norm": "final_layer_norm",
    "pre_logits.fc": "cls_head/inner_dense",
    "head": "cls_head/logit_dense",
}
HALVES = {"block_attention": "", "grid_attention": "_1"}
PARTS = {
    "norm1": "attn_layer_norm{}",
    "norm2": "ffn_layer_norm{}",
    "mlp.fc1": "ffn{}/expand_dense",
    "mlp.fc2": "ffn{}/shrink_dense",
}
LEAVES = {"running_mean": "moving_mean", "running_var": "moving_variance"}


def _tensorflow_name(layer: str) -> str:
    if layer in TOP:
        return TOP[layer]
    _, stage, _, block, half, rest = layer.split(".", 5)
    scope = f"block_{int(stage):02d}_{int(block):02d}"
    if half == "mbconv":
        return f"{scope}/mbconv/{MBCONV[rest]}"
    return f"{scope}/" + (PARTS | {"token_mixer.proj": "attention{}/o"})[rest].format(HALVES[half])


def _as_tensorflow(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Our weights under the authors' variable names and layouts, written down independently of the key table."""
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in state.items():
        layer, leaf = name.rsplit(".", 1)
        value = tensor.numpy()
        if leaf == "num_batches_tracked":
            continue
        if leaf == "bias_table":
            half = layer.split(".")[4]
            scope = _tensorflow_name(layer.replace("token_mixer", "norm1")).split("/")[0]
            arrays[f"{scope}/attention{HALVES[half]}/relative_bias"] = value
        elif layer.endswith("qkv"):
            scope = _tensorflow_name(layer.replace("qkv", "proj")).rsplit("/", 1)[0]
            for part, piece in zip("qkv", np.split(value, 3), strict=True):
                heads = piece.shape[0] // 32
                piece = piece.T.reshape(-1, heads, 32) if leaf == "weight" else piece.reshape(heads, 32)
                arrays[f"{scope}/{part}/{leaf}"] = piece
        elif leaf == "weight" and value.ndim == 4:
            depthwise = layer.endswith("depthwise.conv")
            value = value.transpose(2, 3, 0, 1) if depthwise else value.transpose(2, 3, 1, 0)
            arrays[f"{_tensorflow_name(layer)}/{'depthwise_kernel' if depthwise else 'kernel'}"] = value
        elif leaf == "weight" and value.ndim == 2:
            value = value.T.reshape(-1, 32, value.shape[0]) if layer.endswith("token_mixer.proj") else value.T
            arrays[f"{_tensorflow_name(layer)}/weight"] = value
        else:
            norm = {"weight": "gamma", "bias": "beta"} if "norm" in layer.rsplit(".", 1)[-1] else {}
            arrays[f"{_tensorflow_name(layer)}/{(LEAVES | norm).get(leaf, leaf)}"] = value
    return arrays


def test_tensorflow_variables_load_strictly() -> None:
    source, target = create_model("maxvit_nano", num_classes=4), create_model("maxvit_nano", num_classes=4)
    for tensor in source.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.1, 1)
    arrays = {f"maxvit/{name}": value for name, value in _as_tensorflow(source.state_dict()).items()}
    arrays |= {"global_step": np.zeros(()), "maxvit/stem/conv_0/kernel/Adam": np.zeros((3, 3, 3, 16))}
    # An averaged copy wins over the raw variable.
    arrays["maxvit/stem/conv_1/bias/ExponentialMovingAverage"] = arrays["maxvit/stem/conv_1/bias"]
    arrays["maxvit/stem/conv_1/bias"] = np.zeros_like(arrays["maxvit/stem/conv_1/bias"])
    assert load_state(target, from_tensorflow(arrays), CHECKPOINT_KEYS) == "tensorflow"
    for name, tensor in source.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(target.state_dict()[name], tensor), name


def test_attentions_can_be_left_out_or_change_places() -> None:
    """The same weights in another order are another function; what is left out has no weights."""
    usual = create_model("maxvit_nano", num_classes=3).eval()
    turned = create_model("maxvit_nano", num_classes=3, attentions=("grid", "block")).eval()
    turned.load_state_dict(usual.state_dict())
    images = torch.randn(2, 3, 48, 48)
    assert not torch.allclose(usual(images), turned(images), atol=1e-5)
    short = create_model("maxvit_nano", num_classes=3, attentions=("block",))
    missing = usual.state_dict().keys() - short.state_dict().keys()
    assert missing == {name for name in usual.state_dict() if "grid_attention" in name} != set()
    with pytest.raises(ConfigError, match="some order"):
        create_model("maxvit_nano", attentions=("grid", "grid"))
