"""A training that starts from weights: the probe first, then all layers, and the better of the two."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from vitrail.cli.main import main
from vitrail.core.errors import ConfigError, RunError, TrainingError
from vitrail.core.files import read_json
from vitrail.data import DataConfig, load_data
from vitrail.models.starting_point import FALLBACK, StartingPoint
from vitrail.runs import recipe as recipe_module
from vitrail.runs.evaluate import evaluate_run
from vitrail.runs.recipe import expected, verdict
from vitrail.runs.run import Run
from vitrail.runs.too_early import too_early
from vitrail.runs.train import train
from vitrail.training import TrainConfig

FIELDS = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8}


def folder_of(place: Path, classes: dict[str, int], count: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    for name, channel in classes.items():
        (place / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 130, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 70
            Image.fromarray(pixels).save(place / name / f"{index:02d}.png")
    return place


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("data") / "photos", {"red": 0, "green": 1}, 16, 0)


@pytest.fixture(scope="module")
def start(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that stands for public weights."""
    return train(
        settings(photos, weights=None, epochs=1), run=tmp_path_factory.mktemp("runs") / "start", progress=False
    )


def settings(data: Path, **given: Any) -> TrainConfig:
    common = {"model": "vit_nano_patch4", "model_fields": FIELDS, "image_size": 16, "num_workers": 0}
    return TrainConfig(data=str(data), **common | given)


def test_a_finetuning_starts_from_its_probe_and_tells_the_three_figures(
    photos: Path, start: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="vitrail"):
        run = train(settings(photos, weights=str(start.folder), epochs=2), run=tmp_path / "run", progress=False)
    description = run.read()
    recipe, trained = description.recipe, description.trained
    assert recipe is not None
    assert trained is not None
    assert (recipe.name, description.training.recipe) == ("finetune", "auto")
    assert (description.training.batch_size, description.training.layer_decay) == (8, round(0.03 ** (1 / 3), 3))
    assert recipe.majority == 0.5
    told = caplog.messages[-1]
    assert told.startswith("On 4 validation images: always the most frequent class 50.0%, linear probe ")
    assert "fine-tuned " in told
    probe = load_file(run.checkpoints / "probe.safetensors")
    before = load_file(start.weights)
    backbone = [name for name in probe if ".head." not in name]
    assert all(torch.equal(probe[name], before[name]) for name in backbone), "the backbone of the probe is frozen"


def test_the_probe_is_kept_where_no_epoch_is_better(photos: Path, start: Run, tmp_path: Path) -> None:
    ruined = settings(
        photos, weights=str(start.folder), epochs=1, learning_rate=1e-9, ema_decay=0.0, keep_score="macro_recall"
    )
    run = train(ruined, run=tmp_path / "run", progress=False)
    trained = run.read().trained
    assert trained is not None
    assert (trained.keep, trained.epoch, trained.num_epochs) == ("probe", 0, 1)
    assert set(run.read().recipe.probe_scores) == {"top1", "top5", "macro_recall", "macro_f1"}
    assert verdict(run).endswith("; the probe is kept, since no epoch was better in macro recall")
    assert too_early(run) is None
    kept, probe = load_file(run.weights), load_file(run.checkpoints / "probe.safetensors")
    assert all(torch.equal(kept[name], probe[name]) for name in probe)
    assert evaluate_run(run)["reports"]["torch-float"]["top1"] == run.read().recipe.probe
    last = train(settings(photos, weights=str(start.folder), epochs=1, keep="last"), run=tmp_path / "last")
    assert last.read().trained.keep == "last"


def test_the_recipe_probe_trains_no_epoch(photos: Path, start: Run, tmp_path: Path) -> None:
    run = train(settings(photos, weights=str(start.folder), recipe="probe"), run=tmp_path / "run", progress=False)
    description = run.read()
    assert description.status == "trained"
    assert description.trained is not None
    assert (description.trained.keep, description.trained.num_epochs) == ("probe", 0)
    assert not (run.checkpoints / "last.ckpt").exists()
    assert evaluate_run(run)["reports"]["torch-float"]["top1"] == description.recipe.probe
    with pytest.raises(RunError, match="already trained"):
        train(settings(photos, weights=str(start.folder), recipe="probe"), run=run, progress=False)


def test_a_kill_before_the_recipe_is_noted_loses_nothing(
    photos: Path, start: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    asked = settings(photos, weights=str(start.folder), recipe="probe")
    with monkeypatch.context() as patch:
        patch.setattr("vitrail.runs.train.note_recipe", killed)
        with pytest.raises(TrainingError, match="training was stopped"):
            train(asked, run=tmp_path / "run", progress=False)
    description = train(asked, run=tmp_path / "run", resume=True, progress=False).read()
    assert description.recipe is not None
    assert (description.status, description.recipe.name) == ("trained", "probe")
    assert description.recipe.probe is not None


def test_the_command_line_shows_the_probe(
    photos: Path, start: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"model": "vit_nano_patch4", "model_fields": FIELDS}))
    words = ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(photos), "--weights", str(start.folder)]
    words += ["--image-size", "16", "--recipe", "probe", "--num-workers", "0", "--run", str(tmp_path / "run")]
    assert main([*words, "--json"]) == 0
    recipe = Run(tmp_path / "run").read().recipe
    assert recipe.probe == recipe.probe_scores["top1"]
    scores = {f"val_{name}": value for name, value in recipe.probe_scores.items()}
    told = {"run": str(tmp_path / "run"), "epochs": 0, "epoch": 0}
    assert json.loads(capsys.readouterr().out) == told | scores
    assert main([*words, "--overwrite"]) == 0
    assert "probe" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "In training, top-1" in " ".join(capsys.readouterr().out.split())


def test_an_interrupted_finetuning_goes_on_without_a_second_probe(
    photos: Path, start: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(settings(photos, weights=str(start.folder), epochs=2), run=tmp_path / "whole", progress=False)
    from vitrail.training.recorder import Recorder

    really = Recorder.on_train_epoch_end

    def stop(self: Recorder, *args: Any) -> None:
        really(self, *args)
        if len(self.rows) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_epoch_end", stop)
        with pytest.raises(Exception, match="stopped after 1 of 2 epochs"):
            train(settings(photos, weights=str(start.folder), epochs=2), run=tmp_path / "cut", progress=False)
    monkeypatch.setattr(recipe_module, "fit_probe", None)
    cut = train(TrainConfig(data=str(photos), image_size=16, model_fields=FIELDS, num_workers=0), run=tmp_path / "cut",
                resume=True, progress=False)  # fmt: skip
    left, right = load_file(whole.weights), load_file(cut.weights)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert cut.read().recipe == whole.read().recipe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "probe"}, "recipe='probe' starts from weights that know images; give --weights"),
        ({"recipe": "finetune"}, "recipe='finetune' starts from weights"),
        ({"recipe": "probe", "task": "segmentation", "weights": "w"}, "is not for the task segmentation; use finetune"),
        ({"recipe": "finetune", "task": "generation", "weights": "w"}, "is not for the task generation; use scratch"),
    ],
)
def test_a_recipe_that_does_not_suit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_module.decide(TrainConfig(model="vit_nano_patch4", **given), load_data(DataConfig()))


def test_no_model_means_one_that_has_weights(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    point = StartingPoint(model="vit_nano_patch4", weights=None, sentence="WARNING: nothing to be had")
    monkeypatch.setattr(recipe_module, "find_starting_point", lambda _: point)
    with caplog.at_level(logging.INFO, logger="vitrail"):
        run = train(settings(photos, model=None, epochs=1), run=tmp_path / "run", progress=False)
    assert "WARNING: nothing to be had" in caplog.messages
    assert run.read().model.name == "vit_nano_patch4"
    assert read_json(run.description)["recipe"]["name"] == "scratch"
    named, _ = recipe_module.with_model(TrainConfig(recipe="scratch"))
    assert named.model == FALLBACK


def test_the_printed_configuration_has_values_and_reasons(photos: Path, start: Run) -> None:
    told = expected(settings(photos, weights=str(start.folder)))
    assert told["recipe"] == "finetune: the weights have seen other images"
    assert told["batch_size"] == "8: 28 training images: an epoch has 3 steps"
    assert told["augment.rand_augment_num_ops"].startswith("1: mild")
    assert expected(settings(photos / "none")) == {}
