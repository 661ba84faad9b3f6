"""What every variant promises, checked on the meta device so that the largest ones cost nothing."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import pytest
from torch import nn

from vitrail.contract import shapes
from vitrail.contract.promise import meta_model
from vitrail.models import FAMILIES, Backbone, create_model, find_family, list_models
from vitrail.models.complexity import variant_complexity

PUBLISHED = json.loads((Path(__file__).parent / "published_sizes.json").read_text())


LARGEST = ("maxvit_base", "maxvit_large", "maxvit_xlarge")
EVERY = [pytest.param(name, marks=pytest.mark.slow if name in LARGEST else ()) for name in list_models()]
"""All variants. The largest MaxViTs take seconds even without memory, and have the blocks of the small ones."""


def _sample() -> set[str]:
    """The smallest and the middle variant of each family: the others have the same modules in other numbers."""
    ordered = [sorted(one.variants, key=lambda name: variant_complexity(name).macs) for one in FAMILIES.values()]
    return {names[at] for names in ordered for at in (0, len(names) // 2)} - set(LARGEST)


SAMPLE = [pytest.param(name, marks=() if name in _sample() else pytest.mark.slow) for name in list_models()]


@cache
def build_meta(name: str) -> Backbone:
    """The variant without memory, built once for all that only look at it."""
    return meta_model(partial(create_model, name), drop_path_rate=0.2)


@pytest.mark.parametrize("name", SAMPLE)
def test_levels_are_as_announced(name: str) -> None:
    shapes.levels_are_as_announced(partial(create_model, name))


@pytest.mark.parametrize("name", EVERY)
def test_names_of_parameters_are_true(name: str) -> None:
    shapes.names_of_parameters_are_true(partial(create_model, name))
    model = build_meta(name)
    groups = tuple(prefix for group in model.layer_groups() for prefix in group)
    # Only the final norm and the head come after the last level.
    rest = [n for n, _ in model.named_parameters() if not n.startswith((*groups, *model.head_prefixes))]
    assert all("norm" in n or n.startswith(("final_conv.", "pre_logits.", "head", "alpha")) for n in rest), rest


@pytest.mark.parametrize("name", SAMPLE)
def test_the_classifier_can_be_changed_and_removed(name: str) -> None:
    shapes.classifier_can_be_changed(partial(create_model, name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_equal_the_published_ones(name: str) -> None:
    expected, counted = PUBLISHED[name], variant_complexity(name)  # tests/models/test_complexity.py counts them again
    assert counted.params == expected["parameters"]
    assert counted.macs == pytest.approx(expected["macs"], rel=0.005)


@pytest.mark.parametrize("name", EVERY)
def test_norms_and_depth_survive_a_rebuild_from_the_config(name: str) -> None:
    shapes.rebuilds_from_its_config(partial(create_model, name))


def test_every_family_tells_where_it_comes_from() -> None:
    for family in FAMILIES.values():
        assert all([family.title, family.authors, family.venue, family.arxiv, family.code])
        assert set(family.ours) <= set(family.variants)
        assert all(find_family(name) is family for name in family.variants)


def test_drop_path_grows_to_its_maximum() -> None:
    for name in list_models():
        rates = [m.p for m in build_meta(name).modules() if type(m).__name__ == "StochasticDepth"]
        assert rates, name
        assert rates[0] == 0.0, name
        assert rates == sorted(rates) or name.startswith("vitae"), name  # ViTAE's slices overlap, as its authors' do
        assert 0.1 <= max(rates) <= 0.2 + 1e-9, name


def test_no_variant_hides_a_module_that_is_never_trained() -> None:
    for family in FAMILIES.values():
        for name in family.variants:
            frozen = [n for n, p in build_meta(name).named_parameters() if not p.requires_grad]
            assert all(n.endswith(".w") for n in frozen), (name, frozen)  # Performer's random features


def test_batch_norms_keep_pytorchs_buffers() -> None:
    for name in list_models():
        model = build_meta(name)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.track_running_stats, name
