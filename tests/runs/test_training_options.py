"""Runs that deviate from the plain training: frozen parts, early stops, joined steps, weighted classes."""

from __future__ import annotations

import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from safetensors.torch import load_file
from torch import Tensor

from vitrail.core.errors import ConfigError, MissingDependencyError, TrainingError, VitrailError
from vitrail.data import AugmentConfig
from vitrail.runs.folder import training_files
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.tasks import Score
from vitrail.training import TrainConfig, loggers
from vitrail.training.module import TrainingModule
from vitrail.training.optimizer import learning_rate_factor
from vitrail.training.recorder import is_patience_over, read_checkpoint, read_metrics, write_metrics
from vitrail.training.uneven import uneven_remarks


def interrupt(monkeypatch: pytest.MonkeyPatch, *, epoch: int) -> None:
    """Ctrl-C in an epoch, once."""
    step = TrainingModule.training_step

    def interrupted(module: TrainingModule, batch: Any, batch_idx: int) -> Tensor:
        if module.current_epoch == epoch:
            monkeypatch.setattr(TrainingModule, "training_step", step)
            os.kill(os.getpid(), signal.SIGINT)
        return step(module, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", interrupted)


def assert_resumes(config: TrainConfig, whole: Run, folder: Path, epoch: int) -> None:
    """An interrupted and resumed training is the whole one, bit for bit."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingError, match="was stopped after"):
        interrupt(patch, epoch=epoch)
        train(config, run=folder, progress=False)
    run = train(config, run=folder, resume=True, progress=False)
    assert_same_weights(whole, run)
    untimed = [[row | {"seconds": 0.0} for row in read_metrics(one.metrics)] for one in (whole, run)]
    assert untimed[0] == untimed[1]


def assert_same_weights(first: Run, second: Run) -> None:
    left, right = load_file(first.weights), load_file(second.weights)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def trained(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(replace(config, epochs=1), run=tmp_path_factory.mktemp("runs") / "plain", progress=False)


def test_a_frozen_backbone_is_kept_bit_for_bit(trained: Run, config: TrainConfig, tmp_path: Path) -> None:
    frozen = replace(
        config, freeze="backbone", weights=str(trained.folder), weight_decay=0.5, recipe="scratch", epochs=2
    )
    run = train(frozen, run=tmp_path / "run", progress=False)
    before, after = load_file(trained.weights), load_file(run.weights)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"backbone.head.weight", "backbone.head.bias"}
    assert load_task(run)


def test_the_opening_line_says_how_much_is_trained(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(config, freeze="backbone", epochs=1), run=tmp_path / "run", progress=True)
    told = capsys.readouterr().err
    assert "parameters (34 trained)" in told
    assert "Warning: --freeze backbone freezes random weights" in told


@pytest.fixture(scope="module")
def released(trained: Run, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Run]:
    """Of three epochs of three steps the first four steps train the head alone."""
    later = replace(
        config, freeze_epochs=4 / 3, weights=str(trained.folder), layer_decay=0.8, recipe="scratch", keep="last"
    )
    return later, train(later, run=tmp_path_factory.mktemp("runs") / "released", progress=False)


def test_the_head_first_and_then_all(
    trained: Run, released: tuple[TrainConfig, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = released
    states: list[dict[str, Tensor]] = []
    rates: list[float] = []
    step = TrainingModule.optimizer_step

    def spying(module: TrainingModule, *args: Any, **kwargs: Any) -> None:
        rates.append(max(group["lr"] for group in module.trainer.optimizers[0].param_groups))
        step(module, *args, **kwargs)
        states.append({name: value.clone() for name, value in module.task.state_dict().items()})

    monkeypatch.setattr(TrainingModule, "optimizer_step", spying)
    train(config, run=tmp_path / "run", progress=False)
    start = load_file(trained.weights)
    backbone = [name for name in start if not name.startswith("backbone.head.")]
    for state in states[:4]:
        assert all(torch.equal(state[name], start[name]) for name in backbone)
    assert not torch.equal(states[0]["backbone.head.weight"], start["backbone.head.weight"])
    weights = [name for name in backbone if start[name].is_floating_point()]
    assert not [name for name in weights if torch.equal(states[5][name], start[name])]
    # Two steps of warm-up (a quarter of nine) at the start, and once more from the fifth step on.
    whole = [learning_rate_factor(step, num_steps=9, num_warmup_steps=2) for step in range(9)]
    ramp = [1, 1, 1, 1, 1 / 3, 2 / 3, 1, 1, 1]
    assert rates == pytest.approx([2e-2 * one * other for one, other in zip(whole, ramp, strict=True)])
    groups = read_checkpoint(training_files(Run(tmp_path / "run")).last)["optimizer_states"][0]["param_groups"]
    assert len({group["initial_lr"] for group in groups}) == 3  # two stages and the head


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_released_training_resumes_bit_for_bit(released: tuple[TrainConfig, Run], tmp_path: Path, epoch: int) -> None:
    assert_resumes(*released, tmp_path / "run", epoch)


SCORE = Score(name="top1", title="top-1")


@pytest.mark.parametrize(
    ("scores", "losses", "over"),
    [
        ([0.5, 0.6, 0.6, 0.6], [1, 1, 1, 1], True),
        ([0.5, 0.5, 0.6, 0.6], [1, 1, 1, 1], False),
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 1, 0.9], False),  # equal scores, but a lower loss
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], True),
        ([math.nan, math.nan, math.nan, math.nan], [1, 1, 1, 1], True),
        ([0.5, 0.4], [1, 1], False),
    ],
)
def test_when_patience_is_over(scores: list[float], losses: list[float], over: bool) -> None:
    pairs = zip(scores, losses, strict=True)
    rows = [{"epoch": i, "val_top1": one, "val_loss": loss} for i, (one, loss) in enumerate(pairs, start=1)]
    assert is_patience_over(rows, SCORE, 2) is over
    assert not is_patience_over(rows, SCORE, 0)


def test_a_run_that_stopped_early_is_finished(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.7, 0.6, 0.65, 0.9, 0.9])
    computed = TrainingModule.on_validation_epoch_end

    def planned(module: TrainingModule) -> None:
        computed(module)
        module.scores |= {"val_top1": next(scores), "val_loss": 1.0}

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", planned)
    early = replace(config, epochs=6, patience=2)
    run = train(early, run=tmp_path / "run", progress=True)
    told = "Stopped after epoch 4 of 6: none of the last 2 epochs has a better top-1 than epoch 2 (patience 2)"
    assert told in capsys.readouterr().err
    trained = run.read().trained
    assert trained is not None
    assert (run.read().status, trained.epoch, trained.num_epochs, trained.stopped) == ("trained", 2, 4, told)
    before = run.weights.read_bytes()
    train(early, run=run, resume=True, progress=False)
    assert (len(read_metrics(run.metrics)), run.weights.read_bytes()) == (4, before)
    # Killed after the fourth epoch's state and before the weights: the epochs stay four.
    run.weights.unlink()
    run.update(status="training")
    train(early, run=run, resume=True, progress=False)
    assert (len(read_metrics(run.metrics)), run.weights.read_bytes()) == (4, before)


@pytest.mark.parametrize(("parts", "whole", "steps"), [((4, 2), 8, 6), ((10, 2), 20, 2), ((10, 3), 24, 2)])
def test_joined_batches_are_one_larger_batch(
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: tuple[int, int],
    whole: int,
    steps: int,
) -> None:
    """Without BatchNorm and what is random a batch. 20 of 24 images are two batches of ten, and the rest is dropped;
    where three batches of ten are too many, those of ten, ten and four are a step."""
    gradients: list[Tensor] = []

    def keep(module: TrainingModule, optimizer: Any) -> None:
        gradients.append(torch.cat([p.grad.flatten() for p in module.task.parameters() if p.grad is not None]))

    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", keep)
    plain = replace(config, model="vit_nano_patch4", image_size=16, drop_path_rate=0.0, augment=AugmentConfig())
    plain = replace(plain, epochs=2, learning_rate=1e-4, weight_decay=0.0)
    joined = train(replace(plain, batch_size=parts[0], accumulate=parts[1]), run=tmp_path / "joined", progress=False)
    single = train(replace(plain, batch_size=whole), run=tmp_path / "single", progress=False)
    assert len(gradients) == 2 * steps
    for first, second in zip(gradients[:steps], gradients[steps:], strict=True):
        assert (first - second).norm() < 1e-3 * second.norm()
    assert read_checkpoint(training_files(joined).last)["global_step"] == steps
    for row, expected in zip(read_metrics(joined.metrics), read_metrics(single.metrics), strict=True):
        for name in ("train_loss", "val_loss", "learning_rate"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4), name


def test_a_task_that_takes_its_own_steps_joins_none(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="accumulate=2 task generation takes a step with every batch"):
        train(replace(config, task="generation", accumulate=2), run=tmp_path / "run", progress=False)


def test_uneven_classes_train_and_resume(config: TrainConfig, tmp_path: Path) -> None:
    uneven = replace(config, class_weights="effective", loss="focal", sampler="balanced")
    whole = train(uneven, run=tmp_path / "whole", progress=False)
    plain = train(config, run=tmp_path / "plain", progress=False)
    assert read_metrics(whole.metrics)[0]["train_loss"] < read_metrics(plain.metrics)[0]["train_loss"]
    assert_resumes(uneven, whole, tmp_path / "resumed", 1)
    assert load_task(whole)


@pytest.mark.parametrize(
    ("task", "given", "told"),
    [
        ("detection", {"loss": "focal"}, "loss='focal' task detection has a loss of its own; leave it out"),
        ("aesthetics", {"class_weights": "balanced"}, "class_weights='balanced' task aesthetics has a loss of its own"),
        ("segmentation", {"sampler": "balanced"}, "sampler='balanced' task segmentation has no single class an image"),
    ],
)
def test_tasks_without_a_choice_among_classes(
    config: TrainConfig, tmp_path: Path, task: str, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        train(replace(config, task=task, **given), run=tmp_path / "run", progress=False)


def test_classes_that_are_evened_out_twice_are_warned_of() -> None:
    told = uneven_remarks(TrainConfig(class_weights="balanced", sampler="balanced"))
    assert "together they prefer rare ones" in told[0]
    assert not uneven_remarks(TrainConfig(class_weights="balanced", loss="focal"))


def test_another_score_may_decide(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([(0.9, 0.1), (0.8, 0.7), (0.7, 0.3)])
    computed = TrainingModule.on_validation_epoch_end

    def planned(module: TrainingModule) -> None:
        computed(module)
        module.scores |= dict(zip(("val_top1", "val_macro_recall"), next(scores), strict=True))

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", planned)
    run = train(replace(config, keep_score="macro_recall"), run=tmp_path / "run", progress=False)
    trained = run.read().trained
    assert trained is not None
    assert trained.epoch == 2
    state = read_checkpoint(training_files(run).best)["state_dict"]
    assert torch.equal(state["task.backbone.head.weight"], load_file(run.weights)["backbone.head.weight"])
    with pytest.raises(ConfigError, match="keep_score='f1' task classification has the scores top1, top5, macro_rec"):
        train(replace(config, keep_score="f1"), run=tmp_path / "other", progress=False)


def test_rows_of_earlier_versions_and_of_this_one_in_one_file(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "val_top1": 0.5, "seconds": 1.0}, {"epoch": 2, "val_top1": 0.6, "val_f1": 0.1, "seconds": 1.0}]
    write_metrics(tmp_path / "metrics.csv", rows)
    assert read_metrics(tmp_path / "metrics.csv") == rows


def test_an_automatic_batch_size_is_kept(config: TrainConfig, tmp_path: Path) -> None:
    """24 training images: batches of 16, as if they had been asked for; a resumed run takes what was chosen."""
    automatic = replace(config, batch_size="auto")
    given = train(replace(config, batch_size=16), run=tmp_path / "given", progress=False)
    assert_resumes(automatic, given, tmp_path / "automatic", 1)
    assert Run(tmp_path / "automatic").read().training.batch_size == 16


def test_adapters_are_merged_into_a_plain_model(trained: Run, config: TrainConfig, tmp_path: Path) -> None:
    adapted = replace(config, lora=2, weights=str(trained.folder), keep="last", epochs=2, recipe="scratch")
    run = train(adapted, run=tmp_path / "run", progress=False)
    before, after = load_file(trained.weights), load_file(run.weights)
    assert before.keys() == after.keys()
    moved = {name: after[name] - before[name] for name in before if not torch.equal(before[name], after[name])}
    head = {name for name in moved if name.startswith("backbone.head.")}
    assert len(head) == 2
    assert len(moved) > 4
    for name in moved.keys() - head:
        assert name.endswith(".weight")
        assert torch.linalg.matrix_rank(moved[name], rtol=1e-3) <= 2
    assert (
        run.read().model.num_params
        == trained.read().model.num_params
        == sum(one.numel() for one in load_task(run).parameters())
    )
    assert_resumes(adapted, run, tmp_path / "resumed", 1)


def test_curves_as_csv_inside_the_run(config: TrainConfig, tmp_path: Path) -> None:
    both = replace(config, loggers=("csv", "tensorboard"), epochs=1)
    run = train(both, run=tmp_path / "run", progress=False)
    logged = run.folder / "csv" / "version_0" / "metrics.csv"
    assert "val_top1" in logged.read_text().splitlines()[0]
    assert logged in run.artefacts()
    train(replace(both, loggers=()), run=run, overwrite=True, progress=False)
    assert not logged.exists()
    assert not list((run.folder).glob("tensorboard/*"))


class FakeLogger(Logger):
    """Notes what it is given."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__()
        self.given = given
        self.settings: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.experiment = self
        FakeLogger.made.append(self)

    made: ClassVar[list[FakeLogger]] = []
    name = version = "fake"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.settings = params

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "val_top1" in metrics:
            self.rows.append((step or 0, metrics))


def test_wandb_and_mlflow_log_into_the_run(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # is set, and is reset at the end
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    ends: list[str] = []
    package = SimpleNamespace(finish=lambda: ends.append("wandb"))
    monkeypatch.setattr(loggers, "import_extra", lambda *_: package)
    monkeypatch.setattr(loggers, "WandbLogger", FakeLogger)
    monkeypatch.setattr(loggers, "MLFlowLogger", FakeLogger)
    FakeLogger.made.clear()
    run = train(replace(config, loggers=("wandb", "mlflow"), epochs=2), run=tmp_path / "my run", progress=False)
    wandb, mlflow = FakeLogger.made
    assert wandb.given == {"name": "my run", "save_dir": run.folder, "project": "vitrail"}
    assert mlflow.given == {"run_name": "my run", "tracking_uri": f"file://{tmp_path}/my%20run/mlruns"}
    for fake in FakeLogger.made:
        assert fake.settings["learning_rate"] == config.learning_rate
        assert [step for step, _ in fake.rows] == [3, 6]
    assert ends == ["wandb"]


def test_a_logger_that_cannot_begin_is_one_line(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ConnectionError("no server at 127.0.0.1\nand more lines")

    monkeypatch.setattr(CSVLogger, "log_hyperparams", fail)
    told = "^CSVLogger cannot begin: no server at 127.0.0.1; mend it, or choose others with --loggers$"
    with pytest.raises(VitrailError, match=told):
        train(replace(config, loggers=("csv",)), run=tmp_path / "run", progress=False)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'vitrail\[{name}\]'") as caught:
        train(replace(config, loggers=(name,)), run=tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
