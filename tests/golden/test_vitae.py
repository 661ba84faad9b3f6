"""ViTAE-T and ViTAEv2-S against the authors' logits, and every subtle point broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden.compare import Golden, filled_model, logit_error, stage_errors
from torch import Tensor, nn

from vitrail.layers import MapAttention, NormalCell, PerformerAttention, PyramidReduction, ValueSkipAttention
from vitrail.models import Backbone

V1_STAGES = {
    "layers.0.RC": "stages.0.downsample",
    "layers.1.RC": "stages.1.downsample",
    "layers.2.RC": "stages.2.downsample",
    "layers.2": "stages.2.blocks.6",
}
V2_STAGES = {f"layers.{s}.RC": f"stages.{s}.downsample" for s in range(4)} | {
    f"layers.{s}": f"stages.{s}.blocks.{last}" for s, last in enumerate((1, 1, 7, 1))
}


@pytest.mark.parametrize(("variant", "stages"), [("vitae_t", V1_STAGES), ("vitaev2_s", V2_STAGES)])
def test_logits_and_stages_equal_the_reference(variant: str, stages: dict[str, str]) -> None:
    golden = Golden.load(f"vitae/{variant}")
    model = filled_model(variant, f"vitae/{variant}")
    assert logit_error(model, golden) <= 5e-7
    errors = stage_errors(model, golden, stages)
    assert len(errors) == len(stages)
    assert max(errors.values()) <= 1e-6, errors
    assert sum(p.numel() for p in model.parameters()) == golden.num_parameters


def _modules(model: Backbone, kind: type[nn.Module]) -> list:
    return [module for module in model.modules() if type(module) is kind]


def _set_eps(model: Backbone, old: float, new: float) -> None:
    for norm in _modules(model, nn.LayerNorm):
        if norm.eps == old:
            norm.eps = new


def _set_reduction_eps(model: Backbone) -> None:
    _set_eps(model, 1e-5, 1e-6)


def _set_cell_eps(model: Backbone) -> None:
    _set_eps(model, 1e-6, 1e-5)


def _queries_first(model: Backbone) -> None:
    for mixer in _modules(model, PerformerAttention):
        for parameter in (mixer.kqv.weight, mixer.kqv.bias):
            k, q, v = parameter.data.chunk(3)
            parameter.data = torch.cat([q, k, v])


def _no_value_skip(model: Backbone) -> None:
    def performer(mixer: PerformerAttention, x: Tensor) -> Tensor:
        return PerformerAttention.forward(mixer, x) - mixer.kqv(x).chunk(3, -1)[2]

    def full(mixer: ValueSkipAttention, x: Tensor) -> Tensor:
        return ValueSkipAttention.forward(mixer, x) - mixer.qkv(x).chunk(3, -1)[2]

    for kind, mutated in ((PerformerAttention, performer), (ValueSkipAttention, full)):
        for mixer in _modules(model, kind):
            mixer.forward = lambda x, mixer=mixer, mutated=mutated: mutated(mixer, x)


def _omit_the_branch_of_a_cell(model: Backbone) -> None:
    cell = _modules(model, NormalCell)[-1]
    cell.parallel_conv = nn.Sequential(nn.Identity())
    cell.parallel_conv.forward = torch.zeros_like


def _omit_the_branch_of_a_reduction(model: Backbone) -> None:
    branch = model.stages[1].downsample.parallel_conv
    forward = branch.forward
    branch.forward = lambda x: 0 * forward(x)


def _norm_before_the_branch(model: Backbone) -> None:
    for cell in _modules(model, NormalCell):
        branch = cell.parallel_conv.forward
        cell.parallel_conv.forward = lambda x, branch=branch, cell=cell: branch(
            cell.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        )


def _interleave_dilations(model: Backbone) -> None:
    for module in _modules(model, PyramidReduction):
        forward, count = module.forward, len(module.convs)
        module.forward = lambda x, forward=forward, count=count: (
            forward(x).unflatten(1, (count, -1)).transpose(1, 2).flatten(1, 2)
        )


def _toggle_the_last_activation(model: Backbone) -> None:
    for cell in _modules(model, NormalCell):
        if "act3" in dict(cell.parallel_conv.named_children()):
            del cell.parallel_conv.act3
        else:
            cell.parallel_conv.add_module("act3", nn.SiLU())


def _scale_performer_features(model: Backbone) -> None:
    for mixer in _modules(model, PerformerAttention):
        features, scale = mixer.features, mixer.w.shape[1] ** -0.25
        mixer.features = lambda z, features=features, scale=scale: features(z * scale)


def _forget_the_norm_of_features(model: Backbone) -> None:
    for mixer in _modules(model, PerformerAttention):
        mixer.features = lambda z, w=mixer.w: torch.exp(z @ w.T) / w.shape[0] ** 0.5


def _tanh_gelu(model: Backbone) -> None:
    for module in _modules(model, nn.GELU):
        module.approximate = "tanh"


def _norm_before_pooling(model: Backbone) -> None:
    model.final_norm = lambda x: nn.functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


def _full_attention_everywhere(model: Backbone) -> None:
    cell = model.stages[0].blocks[0]
    mixer = MapAttention(64, 1).double()
    mixer.load_state_dict(cell.token_mixer.state_dict())
    cell.token_mixer = mixer


COMMON = [
    _set_reduction_eps,
    _set_cell_eps,
    _no_value_skip,
    _omit_the_branch_of_a_cell,
    _omit_the_branch_of_a_reduction,
    _norm_before_the_branch,
    _interleave_dilations,
    _toggle_the_last_activation,
    _tanh_gelu,
    _norm_before_pooling,
]
V1_ONLY = [_queries_first, _scale_performer_features, _forget_the_norm_of_features]
V2_ONLY = [_full_attention_everywhere]


@pytest.mark.parametrize(
    ("variant", "mutate"),
    [
        *(("vitae_t", mutate) for mutate in COMMON + V1_ONLY),
        *(("vitaev2_s", mutate) for mutate in COMMON + V2_ONLY),
    ],
)
def test_every_subtle_point_matters(variant: str, mutate: Callable[[Backbone], None]) -> None:
    golden = Golden.load(f"vitae/{variant}")
    model = filled_model(variant, f"vitae/{variant}")
    mutate(model)
    with torch.no_grad():
        logits = model(golden.image[:1])
    error = ((logits - golden.logits[:1]).norm() / golden.logits[:1].norm()).item()
    assert error > 1e-6
