"""ReViT-B against the authors' logits, and every subtle point broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from golden.compare import Golden, load_golden
from torch import Tensor, nn

from vitrail import create_model
from vitrail.layers import residual_attention as layer
from vitrail.models import Backbone

NAME = "revit/revit_b"
TOLERANCE = 5e-7
"""Relative L2 of the logits in float64; the references are rounded to seven digits."""


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden.load(NAME)


@pytest.fixture(scope="module")
def filled(golden: Golden) -> Backbone:
    return load_golden(create_model("revit_b"), golden)


@pytest.fixture
def model(filled: Backbone) -> Iterator[Backbone]:
    """The same model for every test, since it is large; what a test changes is undone."""
    state = {name: value.clone() for name, value in filled.state_dict().items() if value.numel() < 1000}
    norms = {module: module.eps for module in filled.modules() if isinstance(module, nn.LayerNorm)}
    yield filled
    filled.load_state_dict(state, strict=False)
    for norm, eps in norms.items():
        norm.eps = eps


def test_logits_and_stages_equal_the_reference(model: Backbone, golden: Golden) -> None:
    with torch.no_grad():
        final, _ = model.forward_intermediates(golden.image)
        levels = list(model.forward_stages(golden.image))
        logits = model.forward_head(final)
    assert ((logits - golden.logits).norm() / golden.logits.norm()).item() <= TOLERANCE
    compared = 0
    for stage in golden.stages:
        if not stage["name"].startswith("blocks."):
            continue
        level = levels[int(stage["name"].removeprefix("blocks."))]
        assert list(level.shape) == stage["shape"]
        distances = [
            abs(level.mean().item() - stage["mean"]),
            abs(level.std(correction=0).item() - stage["std"]),
            (level[0, 0, :8] - torch.tensor(stage["first8"], dtype=level.dtype)).abs().max().item(),
        ]
        assert max(distances) <= 1e-6 * stage["std"]
        compared += 1
    assert compared == 3
    assert sum(p.numel() for p in model.parameters()) == golden.num_parameters


def _error_of_one_image(model: Backbone, golden: Golden) -> float:
    """One image shows a mutation as well as two."""
    with torch.no_grad():
        logits = model(golden.image[:1])
    return ((logits - golden.logits[:1]).norm() / golden.logits[:1].norm()).item()


def _carry(patch: pytest.MonkeyPatch, change: Callable[..., tuple[Tensor, Tensor | None]]) -> None:
    patch.setattr(layer, "residual_attention", change)


def _carry_own_logits(_model: Backbone, patch: pytest.MonkeyPatch) -> None:
    whole = layer.residual_attention

    def mutated(q, k, v, carried, alpha, *, carry=True):
        out, _ = whole(q, k, v, carried, alpha, carry=carry)
        return out, whole(q, k, v, None, alpha)[1] if carry else None

    _carry(patch, mutated)


def _carry_probabilities(_model: Backbone, patch: pytest.MonkeyPatch) -> None:
    whole = layer.residual_attention

    def mutated(q, k, v, carried, alpha, *, carry=True):
        out, logits = whole(q, k, v, carried, alpha, carry=carry)
        return out, None if logits is None else logits.softmax(-1)

    _carry(patch, mutated)


def _mix_the_first_block(_model: Backbone, patch: pytest.MonkeyPatch) -> None:
    whole = layer.residual_attention

    def mutated(q, k, v, carried, alpha, *, carry=True):
        if carried is None:
            carried = q.new_zeros(*q.shape[:3], k.shape[2])
        return whole(q, k, v, carried, alpha, carry=carry)

    _carry(patch, mutated)


def _mix_nothing(_model: Backbone, patch: pytest.MonkeyPatch) -> None:
    whole = layer.residual_attention
    _carry(patch, lambda q, k, v, _, alpha, *, carry=True: whole(q, k, v, None, alpha, carry=carry))


def _swap_alpha(model: Backbone, _patch: pytest.MonkeyPatch) -> None:
    model.alpha.data = 1 - model.alpha.data


def _squash_alpha(model: Backbone, _patch: pytest.MonkeyPatch) -> None:
    model.alpha.data = model.alpha.data.sigmoid()


def _set_eps(model: Backbone, patch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def _pool_before_the_norm(model: Backbone, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model, "final_norm", lambda x: x)
    patch.setattr(model, "pool", lambda x: model.norm(x.mean(1)))


def _read_the_first_token(model: Backbone, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model, "pool", lambda x: x[:, 0])


@pytest.mark.parametrize(
    "mutate",
    [
        _carry_own_logits,
        _carry_probabilities,
        _mix_the_first_block,
        _mix_nothing,
        _swap_alpha,
        _squash_alpha,
        _set_eps,
        _pool_before_the_norm,
        _read_the_first_token,
    ],
)
def test_every_subtle_point_matters(
    mutate: Callable, model: Backbone, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(model, monkeypatch)
    assert _error_of_one_image(model, golden) > 2 * TOLERANCE
