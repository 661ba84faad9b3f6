"""From a float model to a quantised one, and all that can go wrong on the way."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.errors import ConfigError, QuantizationError, VitrailError
from vitrail.models import create_model
from vitrail.quantization import QuantizationConfig, QuantizationPlan, QuantizedModel, quantize


@pytest.fixture(scope="module")
def quantized_vit(vit: nn.Module, images: Tensor) -> QuantizedModel:
    return quantize(vit, images)


@pytest.fixture(scope="module")
def quantized_edgevit(edgevit: nn.Module, images: Tensor) -> QuantizedModel:
    return quantize(edgevit, images)


def decibels(model: nn.Module, quantized: nn.Module, images: Tensor) -> float:
    """Signal to noise of the quantised output."""
    with torch.inference_mode():
        reference, output = model(images), quantized(images)
    return float(10 * torch.log10(reference.square().sum() / (reference - output).square().sum()))


def test_every_operand_of_a_block_is_named_by_module_and_role(quantized_vit: QuantizedModel) -> None:
    names = [name.removeprefix("blocks.0.") for name in quantized_vit.plan.operands if name.startswith("blocks.0.")]
    assert names == [
        "token_mixer.qkv:input",
        "token_mixer.qkv:weight",
        "token_mixer:query",
        "token_mixer:key",
        "token_mixer:softmax",
        "token_mixer:value",
        "token_mixer.proj:input",
        "token_mixer.proj:weight",
        "mlp.fc1:input",
        "mlp.fc1:weight",
        "mlp.fc2:input",
        "mlp.fc2:weight",
    ]
    assert {"head:input", "head:weight"} <= set(quantized_vit.plan.operands)
    assert quantized_vit.plan.simulated == ()
    assert quantized_vit.plan.skipped == ("stem.proj: kept in float by keep_float 'stem'",)


def test_eight_bits_are_close_to_float(
    vit: nn.Module,
    edgevit: nn.Module,
    quantized_vit: QuantizedModel,
    quantized_edgevit: QuantizedModel,
    images: Tensor,
) -> None:
    assert decibels(vit, quantized_vit, images) > 20
    assert decibels(edgevit, quantized_edgevit, images) > 20


def test_fewer_bits_are_coarser(vit: nn.Module, quantized_vit: QuantizedModel, images: Tensor) -> None:
    four = quantize(vit, images, config=QuantizationConfig(weight_bits=4, activation_bits=4))
    assert decibels(vit, four, images) < decibels(vit, quantized_vit, images) - 10
    widths = {quantizer.bit_width for quantizer in four.plan.operands.values()}
    assert widths == {4}


def test_weights_are_codes_and_no_float_copy_is_left(quantized_vit: QuantizedModel) -> None:
    state = quantized_vit.state_dict()
    codes = {name: tensor for name, tensor in state.items() if name.endswith("_codes")}
    assert len(codes) == 2 * 4 + 1
    assert all(tensor.dtype == torch.int8 for tensor in codes.values())
    matrices = [name for name, t in state.items() if t.is_floating_point() and t.squeeze().ndim > 1]
    assert [name for name in matrices if "pos_embed" not in name] == ["graph_module.stem.proj.weight"]


def test_depthwise_convolutions_stay_float_by_default(quantized_edgevit: QuantizedModel) -> None:
    plan = quantized_edgevit.plan
    path = "stages.0.blocks.0.local_block.token_mixer.depthwise"
    assert f"{path}: kept in float by keep_float 'depthwise'" in plan.skipped
    assert not [name for name in plan.operands if "depthwise" in name or "pos_embed" in name or "propagate" in name]


def test_keep_float_takes_paths_and_an_empty_one_quantises_everything(edgevit: nn.Module, images: Tensor) -> None:
    everything = quantize(edgevit, images, config=QuantizationConfig(keep_float=(), preset="min_max"))
    assert everything.plan.skipped == ()
    assert "stages.0.blocks.0.global_block.token_mixer.propagate:weight" in everything.plan.operands
    assert decibels(edgevit, everything, images) > 10
    some = quantize(edgevit, images, config=QuantizationConfig(keep_float=("stages.*",), preset="min_max"))
    assert set(some.plan.operands) == {"head:input", "head:weight"}


def test_the_model_is_left_alone(vit: nn.Module, images: Tensor) -> None:
    before = copy.deepcopy(vit.state_dict())
    vit.train()
    quantize(vit, images[:16])
    assert vit.training
    vit.eval()
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.state_dict().items())


def test_any_batch_size(quantized_edgevit: QuantizedModel, images: Tensor) -> None:
    with torch.inference_mode():
        whole, single = quantized_edgevit(images[:6]), quantized_edgevit(images[5:6])
    # another batch size adds in another order, and a value on the edge of two codes may fall on either side
    assert float((whole[5:] - single).abs().max() / whole.abs().max()) < 0.05


def test_a_plan_rebuilds_the_same_model_without_calibration(
    edgevit: nn.Module, quantized_edgevit: QuantizedModel, images: Tensor, tmp_path: Path
) -> None:
    quantized_edgevit.plan.save(tmp_path / "quantization.json")
    plan = QuantizationPlan.load(tmp_path / "quantization.json")
    assert plan == quantized_edgevit.plan
    rebuilt = quantize(edgevit, torch.zeros(1, 3, 16, 16), plan=plan)
    with torch.inference_mode():
        assert torch.equal(rebuilt(images), quantized_edgevit(images))


def test_a_plan_of_another_model_is_refused(quantized_vit: QuantizedModel, edgevit: nn.Module, images: Tensor) -> None:
    with pytest.raises(
        QuantizationError,
        match=r"another model \(ViT\) than this EdgeViT: .* no operand 'blocks.0.token_mixer.qkv:input'",
    ):
        quantize(edgevit, images, plan=quantized_vit.plan)


def test_a_plan_of_another_width_is_refused(quantized_vit: QuantizedModel, images: Tensor) -> None:
    wider = create_model("vit_nano_patch4", num_classes=10, depth=2, embed_dim=64, num_heads=2, image_size=16)
    with pytest.raises(QuantizationError, match=f"fingerprint {quantized_vit.plan.fingerprint}, not"):
        quantize(wider, images, plan=quantized_vit.plan)


def test_a_plan_of_other_weights_is_refused(vit: nn.Module, quantized_vit: QuantizedModel, images: Tensor) -> None:
    """Its codes are steps from the nearest ones of its own weights."""
    other = copy.deepcopy(vit)
    with torch.no_grad():
        other.head.bias[0] += 1e-3
    with pytest.raises(QuantizationError, match=r"for other weights of ViT \(digest \w{16}, not \w{16}\)"):
        quantize(other, images, plan=quantized_vit.plan)
    old = {name: value for name, value in quantized_vit.plan.to_dict().items() if name != "weights"}
    quantize(other, images, plan=QuantizationPlan.from_dict(old))  # version 0.1.0 did not say


def test_a_plan_keeps_the_names_of_version_0_1_0(quantized_vit: QuantizedModel) -> None:
    values = quantized_vit.plan.to_dict()
    values["config"] |= {"act": "twin", "rounding": "second_order"}
    plan = QuantizationPlan.from_dict(values)
    assert (plan.config.activation, plan.config.rounding) == ("twin", "gptq")
    assert plan.to_dict() == values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "not a quantisation plan"),
        ('{"operands": [], "version": 7}', "version 7 and this Vitrail reads 2"),
        ('{"operands": [{"name": "a"}], "version": 2, "config": {"keep_float": []}}', "unknown kind"),
        ('{"operands": [{"name": "a", "kind": "log"}], "version": 2, "config": {"keep_float": []}}', "damaged"),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "quantization.json").write_text(content)
    with pytest.raises(VitrailError, match=message):
        QuantizationPlan.load(tmp_path / "quantization.json")


def test_no_images_is_an_error(vit: nn.Module) -> None:
    with pytest.raises(QuantizationError, match="at least one normalised image"):
        quantize(vit, torch.zeros(0, 3, 16, 16))


def test_few_images_are_noted(vit: nn.Module, quantized_vit: QuantizedModel, images: Tensor) -> None:
    assert quantized_vit.plan.notes == ()
    plan = quantize(vit, images[:4]).plan
    assert plan.notes == ("only 4 calibration images were given; 16 or more give safer ranges",)


def test_constant_images_are_refused_by_name(vit: nn.Module) -> None:
    with pytest.raises(QuantizationError, match=r"activation stem.proj:input is 0 everywhere on all 2 calibration"):
        quantize(vit, torch.zeros(2, 3, 16, 16), config=QuantizationConfig(keep_float=()))


def test_nan_is_refused_by_name(vit: nn.Module, images: Tensor) -> None:
    broken = copy.deepcopy(vit)
    broken.blocks[1].norm2.weight.data[3] = float("nan")  # type: ignore[index,union-attr]
    with pytest.raises(QuantizationError, match=r"activation blocks.1.mlp.fc1:input holds NaN or infinity"):
        quantize(broken, images)


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(QuantizationError, match="weight_bits=9 is not supported"):
        QuantizationConfig(weight_bits=9)
    with pytest.raises(
        ConfigError, match="observer='median' is not allowed; choose min_max, percentile, mse or hessian"
    ):
        QuantizationConfig(observer="median")
    with pytest.raises(ConfigError, match="preset='worst' is not allowed; choose min_max, mptq, fast or best"):
        QuantizationConfig(preset="worst")
    with pytest.raises(QuantizationError, match="give one budget"):
        QuantizationConfig(average_bits=4, max_size_mb=1)
    with pytest.raises(QuantizationError, match=r"average_bits=9\.0 is outside 2 to 8"):
        QuantizationConfig(average_bits=9)


class Odd(nn.Module):
    """What our families do not have: batch norm after convolution, masked, causal and plain attention, einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.mix = nn.Parameter(torch.randn(8, 8))
        self.head = nn.Linear(8, 5)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        x = x + F.scaled_dot_product_attention(x, x, x, torch.ones(16, 16).tril().bool())
        x = x + F.scaled_dot_product_attention(x, x, x, is_causal=True)
        x = x + (x @ x.transpose(1, 2)).softmax(-1) @ x
        x = self.dropout(torch.einsum("bnc,cd->bnd", x, self.mix) + x @ self.mix)
        return self.head(x.mean(1))


def test_operations_beyond_our_families(images: Tensor) -> None:
    model = Odd()
    for _ in range(3):
        model(images)
    model.eval()
    quantized = quantize(model, images)
    assert decibels(model, quantized, images) > 20
    assert set(quantized.plan.skipped) == {
        "model: causal, grouped-query or dropped-out attention has no integer form here",
        "model: einsum has no integer form here",
        "conv: kept in float by keep_float 'stem'",
    }
    assert {":query", ":softmax", ":left", ":right", ":left#2", ":weight"} <= set(quantized.plan.operands)
    targets = {str(node.target) for node in quantized.graph_module.graph.nodes}
    assert not [target for target in targets if "batch_norm" in target or "dropout" in target]


def test_a_model_that_fixes_the_batch_size_is_refused(images: Tensor) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, -1)

    with pytest.raises(QuantizationError, match=r"Fixed cannot be captured by torch.export with a free batch size"):
        quantize(Fixed(), images)


def test_timm_models_are_quantised_too() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10).eval()
    images = torch.randn(16, 3, 32, 32)
    quantized = quantize(model, images)
    assert {"blocks.1.attn:softmax", "blocks.1.mlp.fc2:weight", "head:weight"} <= set(quantized.plan.operands)
    assert decibels(model, quantized, images) > 15


def test_a_quantiser_of_the_plan_is_what_the_model_uses(
    vit: nn.Module, quantized_vit: QuantizedModel, images: Tensor
) -> None:
    plan = quantized_vit.plan
    head = plan.operands["head:input"]
    coarse = replace(plan, operands={**plan.operands, "head:input": replace(head, scale=head.scale * 50)})
    assert decibels(vit, quantize(vit, images, plan=coarse), images) < decibels(vit, quantized_vit, images) - 3


class Masked(nn.Module):
    def __init__(self, mask: Tensor | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.qkv, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 48), nn.Linear(16, 5)
        self.mask = mask

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        mask = x[..., :1] > 0 if self.mask is None else self.mask
        return self.head(F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1), attn_mask=mask).mean(1))


@pytest.mark.parametrize("kind", ["boolean", "float", "computed", "boolean for all heads"])
def test_a_query_that_may_attend_to_nothing_gets_zeros(kind: str, images: Tensor) -> None:
    allowed = torch.rand(16, 16) > 0.3
    allowed[[2, 7]] = False
    masks = {"boolean": allowed, "float": torch.zeros(16, 16).masked_fill(~allowed, float("-inf")), "computed": None}
    model = Masked(masks.get(kind, allowed[None])).eval()
    for preset in ("min_max", "fast"):
        quantized = quantize(model, images, config=QuantizationConfig(preset=preset))  # type: ignore[arg-type]
        assert {":query", ":key", ":softmax", ":value"} <= set(quantized.plan.operands)
        assert decibels(model, quantized, images) > 25


class OneToken(nn.Module):
    """Attention over as many tokens as there are, with the probabilities on the right of the product."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Conv2d(3, 24, 8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        attention = (q.transpose(1, 2) @ k).softmax(-1)
        return self.out((v @ attention.transpose(1, 2)).mean(2))


def test_attention_over_one_token_is_no_dead_activation() -> None:
    torch.manual_seed(0)
    model, images = OneToken().eval(), torch.randn(16, 3, 8, 8)
    expected = model(images).detach()
    found = quantize(model, images)(images).detach()
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.02
