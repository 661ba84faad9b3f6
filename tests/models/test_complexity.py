from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from vitrail.models import complexity as module_under_test, create_model, list_models
from vitrail.models.complexity import COUNTED, Complexity, complexity, count_variant, variant_complexity

VARIANTS = list_models()


def test_a_convolution_and_a_linear_layer_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 6 * 4, 5))
    assert complexity(model, (6, 4)) == Complexity(
        params=(27 * 8 + 8) + 16 + (192 * 5 + 5), macs=24 * 8 * 27 + 192 * 5, activations=24 * 8 + 5
    )
    assert model.training


def test_the_matrix_products_of_attention_are_counted() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            tokens = (x * self.scale).flatten(2).transpose(1, 2)  # (1, 16, 3)
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    assert complexity(Attend(), 4).macs == 2 * 16 * 16 * 3


@pytest.mark.parametrize(
    ("name", "params", "macs"), [("edgevit_xxs", 4_067_704, 0.551e9), ("edgevit_xs", 6_770_056, 1.128e9)]
)
def test_published_counts_without_memory_for_the_weights(name: str, params: int, macs: float) -> None:
    with torch.device("meta"):
        model = create_model(name)
    found = complexity(model, 224)
    assert found.params == params
    assert found.macs == pytest.approx(macs, rel=0.002)
    assert not any(module._forward_hooks for module in model.modules())


LARGE = 2e9
"""MACs from which a variant takes long to count, even without memory; the small ones of each family are below."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (variant_complexity(name).macs > LARGE)) for name in VARIANTS],
)
def test_the_table_has_what_is_counted(name: str) -> None:
    table = json.loads(COUNTED.read_text(encoding="utf-8"))
    assert table.get(name) == count_variant(name).to_dict(), "renew it with: python -m vitrail.models.complexity"


def test_the_table_has_no_models_that_are_gone() -> None:
    assert list(json.loads(COUNTED.read_text(encoding="utf-8"))) == VARIANTS


def test_a_variant_that_the_table_lacks_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_under_test, "_table", dict)
    assert variant_complexity("edgevit_nano_stride2") == count_variant("edgevit_nano_stride2")
