"""A generator and its discriminator: taking turns, R1 now and then, resuming, stopping at a loss that is no number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitrail.core.errors import ConfigError, TrainingError
from vitrail.core.types import Batch, Preprocessing
from vitrail.data import DataConfig
from vitrail.models import discriminator, maxvit_gan
from vitrail.models.maxvit_gan import GeneratorConfig
from vitrail.runs.folder import training_files
from vitrail.runs.load import load_task
from vitrail.runs.train import train
from vitrail.tasks import GenerationTask, generation
from vitrail.tasks.generation import GenerationAnswers, GenerationOptions
from vitrail.training import TrainConfig
from vitrail.training.adversarial import AdversarialModule
from vitrail.training.recorder import read_checkpoint

TINY = GeneratorConfig(
    embed_dims=(8, 8), depths=(1, 1), latent_dim=4, memory_tokens=2, memory_dim=8, head_dim=8, mlp_ratio=1.0
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for label in ("dark", "light"):
        (folder / label).mkdir()
        for i in range(12):
            pixels = random.integers(0, 60, (16, 16, 3)) + (180 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture
def config(images: Path) -> Iterator[TrainConfig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(maxvit_gan.GENERATORS, "maxvit_gan_test_16", TINY)
        yield TrainConfig(
            task="generation",
            options={"discriminator_width": 1 / 64, "r1_every": 3, "conditional": True},
            model="maxvit_gan_test_16",
            data=DataConfig(path=str(images), val_fraction=0.5),
            epochs=3,
            batch_size=4,
            learning_rate=1e-3,
            ema_decay=0.5,
            keep="last",
            num_workers=0,
        )


def test_a_resumed_training_ends_as_an_uninterrupted_one(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, run=tmp_path / "whole", progress=False)
    step = AdversarialModule.training_step
    count = 0

    def interrupted(self: AdversarialModule, batch: Batch, batch_idx: int) -> Any:
        nonlocal count
        count += 1
        if count == 5:  # in the second epoch
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(AdversarialModule, "training_step", interrupted)
    with pytest.raises(TrainingError, match="stopped after 1 of 3 epochs"):
        train(config, run=tmp_path / "parts", progress=False)
    parts = train(config, run=tmp_path / "parts", resume=True, progress=False)
    first, second = load_file(whole.weights), load_file(parts.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_model_is_the_averaged_generator_alone(config: TrainConfig, tmp_path: Path) -> None:
    run = train(config, run=tmp_path / "run", progress=False)
    saved = load_file(run.weights)
    assert all(name.startswith("backbone.") for name in saved)
    checkpoint = read_checkpoint(training_files(run).last)
    assert any(name.startswith("discriminator.") for name in checkpoint["state_dict"])
    assert not any("extractor" in name for name in checkpoint["state_dict"])
    name = "task.backbone.first.weight"
    assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])
    assert torch.equal(checkpoint["state_dict"][name], saved["backbone.first.weight"])
    task = load_task(run)
    assert isinstance(task, GenerationTask)
    assert run.read().model.num_params == sum(p.numel() for p in task.backbone.parameters())
    assert run.read().input_shape == (6, 1, 1)
    assert run.metrics.read_text().splitlines()[0].count("val_frechet") == 1


def test_r1_is_added_every_few_steps_and_as_heavy(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    task = GenerationTask(
        maxvit_gan.create_generator("maxvit_gan_test_16"), (), typed_options(r1_every=3, r1_weight=2.0)
    )
    module = AdversarialModule(task, replace(config, options={}), Preprocessing())
    monkeypatch.setattr(generation, "gradient_penalty", lambda *_: torch.tensor(5.0))
    monkeypatch.setattr(generation, "discriminator_loss", lambda *_: torch.tensor(1.0))
    images, labels = torch.randn(2, 3, 16, 16), torch.zeros(2, dtype=torch.int64)
    losses = [
        float(task.discriminator_loss(module.discriminator, images, {"label": labels}, step)) for step in range(5)
    ]
    assert losses == [31, 1, 1, 31, 1], "weight 2, three times, every third step"


def test_several_devices_are_refused(config: TrainConfig) -> None:
    task = GenerationTask(maxvit_gan.create_generator("maxvit_gan_test_16"), (), typed_options())
    module = AdversarialModule(task, replace(config, options={}), Preprocessing())
    module._trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="2 devices: an adversarial task is trained on one"):
        module.on_fit_start()


def typed_options(**values: Any) -> Any:
    return GenerationOptions(discriminator_width=1 / 64, **values)


def test_each_is_trained_by_its_own_loss(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator's step leaves the discriminator as it is, and the other way round."""
    changed: list[tuple[bool, bool]] = []
    take = AdversarialModule._take

    def watched(self: AdversarialModule, optimizer: Any, loss: torch.Tensor, step: int) -> None:
        before = [[p.detach().clone() for p in part.parameters()] for part in (self.task, self.discriminator)]
        take(self, optimizer, loss, step)
        after = [list(part.parameters()) for part in (self.task, self.discriminator)]
        changed.append(
            tuple(  # type: ignore[arg-type]
                any(not torch.equal(a, b) for a, b in zip(*pair, strict=True))
                for pair in zip(before, after, strict=True)
            )
        )

    monkeypatch.setattr(AdversarialModule, "_take", watched)
    train(replace(config, epochs=1), run=tmp_path / "run", progress=False)
    assert changed[:4] == [(False, True), (True, False)] * 2


def test_a_loss_that_is_no_number_names_its_step_and_keeps_the_last_epoch(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def breaking(scores: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return discriminator.generator_loss(scores) * (float("nan") if calls == 5 else 1.0)

    monkeypatch.setattr(generation, "generator_loss", breaking)
    with pytest.raises(TrainingError, match=r"the loss became nan at step 5 \(epoch 2\)"):
        train(config, run=tmp_path / "run", progress=False)
    for path in (tmp_path / "run" / "checkpoints" / "last.ckpt", best_checkpoint_of(tmp_path / "run")):
        state = read_checkpoint(path)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"] == 0


def best_checkpoint_of(folder: Path) -> Path:
    from vitrail.runs.run import Run

    return training_files(Run(folder)).best


@pytest.mark.slow
def test_generation_learns_how_light_its_classes_are(config: TrainConfig, tmp_path: Path) -> None:
    options = {"discriminator_width": 1 / 32, "conditional": True, "r1_weight": 0.1}
    run = train(
        replace(config, epochs=12, options=options, learning_rate=8e-3, ema_decay=0.9),
        run=tmp_path / "run",
        progress=False,
    )
    task = load_task(run)
    assert isinstance(task, GenerationTask)
    made = GenerationAnswers(task).make(torch.randn(40, 4), [0, 1] * 20)
    dark, light = (np.mean([one.float().mean() for one in made[start::2]]) for start in (0, 1))
    assert light - dark > 60
