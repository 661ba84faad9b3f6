"""What a recipe decides, what it leaves alone, and the reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from vitrail.data import AugmentConfig, ResolvedAugment
from vitrail.training import ResolvedConfig, TrainConfig
from vitrail.training.config import CHOSEN, completed, differing_settings
from vitrail.training.recipes import Facts, resolve

FLOWERS = Facts(task="classification", num_images=919, num_layers=14, weights="labelled")
MODEL = "vit_nano_patch4"


@pytest.mark.parametrize(
    ("recipe", "facts", "name"),
    [
        ("auto", FLOWERS, "finetune"),
        ("auto", replace(FLOWERS, weights="random"), "scratch"),
        ("auto", replace(FLOWERS, task="segmentation"), "scratch"),
        ("auto", replace(FLOWERS, weights="unlabelled"), "scratch"),
        ("probe", FLOWERS, "probe"),
        ("scratch", FLOWERS, "scratch"),
        ("finetune", replace(FLOWERS, weights="random"), "finetune"),
    ],
)
def test_auto_follows_from_the_weights_and_the_task(recipe: Any, facts: Facts, name: str) -> None:
    decided = resolve(TrainConfig(model=MODEL, recipe=recipe), facts)
    assert decided.recipe == name
    assert decided.why


def test_scratch_has_the_values_of_before() -> None:
    """A run of 0.1.0 that is repeated gets the same weights."""
    config = resolve(TrainConfig(model=MODEL), replace(FLOWERS, weights="random")).config
    assert (config.epochs, config.batch_size, config.learning_rate, config.layer_decay) == (100, 64, 1e-3, 1.0)
    assert (config.warmup_epochs, config.drop_path_rate, config.ema_decay) == (5.0, 0.05, 0.999)
    assert config.augment == ResolvedAugment(
        random_resized_crop_scale=(0.4, 1.0), rand_augment_num_ops=2, rand_augment_magnitude=7, random_erasing=0.1
    )


def test_what_somebody_decided_stays() -> None:
    own = {"epochs": 7, "batch_size": 5, "learning_rate": 0.25, "layer_decay": 0.5, "ema_decay": 0.0}
    augment = AugmentConfig(random_erasing=0.4, hflip=0.0)
    decided = resolve(TrainConfig(model=MODEL, augment=augment, **own), FLOWERS)
    assert {name: getattr(decided.config, name) for name in own} == own
    assert (decided.config.augment.random_erasing, decided.config.augment.hflip) == (0.4, 0.0)
    assert decided.config.augment.rand_augment_num_ops == 1
    assert not decided.reasons.keys() & {*own, "random_erasing"}
    assert "919 training images" in decided.reasons["rand_augment_num_ops"]


@given(num_images=st.integers(1, 2_000_000), num_layers=st.integers(1, 60), batch=st.none() | st.integers(1, 4096))
def test_a_finetuning_counts_steps(num_images: int, num_layers: int, batch: int | None) -> None:
    facts = replace(FLOWERS, num_images=num_images, num_layers=num_layers)
    decided = resolve(TrainConfig(model=MODEL, batch_size=batch), facts)
    config = decided.config
    steps = config.epochs * max(num_images // config.batch_size, 1)
    assert config.epochs >= 3
    assert steps >= 200 or config.epochs >= 200
    assert config.learning_rate / config.batch_size == pytest.approx(0.0005 / 32)
    assert config.layer_decay**num_layers == pytest.approx(0.03, rel=0.06)
    assert 0.9 <= config.ema_decay < 1
    assert decided.reasons.keys() >= {*CHOSEN} - ({"batch_size"} if batch else set())


def test_four_times_the_images_are_twice_the_steps() -> None:
    small, large = (
        resolve(TrainConfig(model=MODEL, batch_size=32), replace(FLOWERS, num_images=count)).config.epochs * count
        for count in (2_000, 8_000)
    )
    assert large / small == pytest.approx(2, rel=0.1)


def test_a_resumed_training_agrees_with_what_it_leaves_out() -> None:
    known = ResolvedConfig(model="vit_tiny_patch16", weights="pretrained:augreg_in21k", epochs=12, learning_rate=2e-4)
    assert differing_settings(known, TrainConfig()) == []
    assert completed(TrainConfig(), known) == known
    assert differing_settings(known, TrainConfig(epochs=13)) == ["epochs 12 -> 13"]
    assert differing_settings(known, TrainConfig(model="vit_tiny_patch16")) == [
        "weights 'pretrained:augreg_in21k' -> None"
    ], "a model without weights means random ones"
    erased = differing_settings(known, TrainConfig(augment=AugmentConfig(random_erasing=0.5)))
    assert erased == ["augment.random_erasing 0.1 -> 0.5"]
