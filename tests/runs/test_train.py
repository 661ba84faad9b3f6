from __future__ import annotations

import csv
import math
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitrail.core.errors import ConfigError, DataError, ImageSizeError, RunError, TrainingError, VitrailError
from vitrail.core.files import read_json
from vitrail.data import DataConfig
from vitrail.data.loading import batches
from vitrail.runs.folder import finish, training_files, typed_command
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.runtimes import FORMATS
from vitrail.tasks import ClassificationTask, Score
from vitrail.training import ResolvedConfig, TrainConfig
from vitrail.training.config import completed
from vitrail.training.loop import resolve_precision
from vitrail.training.module import TrainingModule
from vitrail.training.recorder import best_row, read_checkpoint, recorded_rows


@pytest.fixture(scope="module")
def trained(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(config, run=tmp_path_factory.mktemp("runs") / "plain", progress=False)


def rows(run: Run) -> list[dict[str, float]]:
    with run.metrics.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def untimed(run: Run) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(run)]


def assert_same_training(first: Run, second: Run) -> None:
    left, right = load_file(first.weights), load_file(second.weights)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert untimed(first) == untimed(second)


class Interruption:
    """Calls something in the middle of an epoch, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, epoch: int, act: Callable[[], Any]) -> None:
        step = TrainingModule.training_step

        def interrupted(module: TrainingModule, batch: Any, batch_idx: int) -> Tensor:
            if (module.current_epoch, batch_idx) == (epoch, 1):
                monkeypatch.setattr(TrainingModule, "training_step", step)
                act()
            return step(module, batch, batch_idx)

        monkeypatch.setattr(TrainingModule, "training_step", interrupted)


def test_a_run_describes_itself(trained: Run, config: TrainConfig) -> None:
    description = trained.read()
    assert description.status == "trained"
    assert description.classes == ("green", "red")
    assert description.model.name == "edgevit_test"
    assert description.image_shape == (3, 16, 16)
    assert (description.data.num_train, description.data.num_val) == (24, 8)
    assert description.training == completed(config, ResolvedConfig())
    assert {"python", "torch", "lightning", "vitrail"} <= description.versions.keys()
    assert sorted(path.name for path in trained.folder.iterdir()) == [
        "checkpoints",
        "images.csv",
        "metrics.csv",
        "model.safetensors",
        "run.json",
        "tensorboard",
    ]
    assert list((trained.folder / "tensorboard").glob("events.out.tfevents.*"))


def test_a_row_an_epoch(trained: Run) -> None:
    found = rows(trained)
    assert list(found[0]) == [
        "epoch",
        "learning_rate",
        "train_loss",
        "val_loss",
        "val_top1",
        "val_top5",
        "val_macro_recall",
        "val_macro_f1",
        "seconds",
    ]
    assert [row["epoch"] for row in found] == [1, 2, 3]
    # Two steps of warm-up (a quarter of nine) and seven of cosine; a row has the rate of its epoch's last step.
    cosine = [(1 + math.cos(math.pi * step / 7)) / 2 for step in (0, 3, 6)]
    assert [row["learning_rate"] / 2e-2 for row in found] == pytest.approx(cosine, rel=1e-5)


def test_it_learns(trained: Run) -> None:
    losses = [row["train_loss"] for row in rows(trained)]
    assert losses[-1] < losses[0]


def test_nothing_is_printed(config: TrainConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(replace(config, epochs=1), run=tmp_path / "run", progress=False)
    assert capfd.readouterr() == ("", "")


def test_the_working_directory_stays_clean(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(replace(config, epochs=1), run="out", progress=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_saved_weights_are_the_averaged_ones(trained: Run, config: TrainConfig, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(training_files(trained).best)
    saved = load_file(trained.weights)
    raw = checkpoint["current_model_state"]
    assert any(not torch.equal(saved[name.removeprefix("task.")], value) for name, value in raw.items())
    # The average of weights w1, w2, ... as defined: 2/11 of it is old at the second step, 3/12 at the third, ...
    seen: list[Tensor] = []
    name = "backbone.head.weight"
    step = TrainingModule.optimizer_step

    def spying(module: TrainingModule, *args: Any, **kwargs: Any) -> None:
        step(module, *args, **kwargs)
        seen.append(module.task.get_parameter(name).detach().clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "optimizer_step", spying)
        run = train(replace(config, keep="last"), run=tmp_path / "run", progress=False)
    average = seen[0]
    for count, value in enumerate(seen[1:], start=1):
        decay = min(config.ema_decay, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * value
    assert len(seen) == 9
    torch.testing.assert_close(load_file(run.weights)[name], average)


def test_without_averaging_the_last_weights_are_kept(config: TrainConfig, tmp_path: Path) -> None:
    run = train(replace(config, ema_decay=0.0, keep="last", epochs=2), run=tmp_path / "run", progress=False)
    checkpoint = read_checkpoint(training_files(run).last)
    assert "current_model_state" not in checkpoint
    saved = load_file(run.weights)
    assert all(
        torch.equal(saved[name.removeprefix("task.")], value) for name, value in checkpoint["state_dict"].items()
    )


def test_metrics_belong_to_the_saved_weights(trained: Run, config: TrainConfig) -> None:
    """The best row's figures are those of model.safetensors, computed once more from the outside."""
    from vitrail.data import eval_loader, load_data

    task = load_task(trained)
    preprocessing = trained.read().preprocessing
    batch = next(iter(eval_loader(load_data(config.data).val, preprocessing, batch_size=8)))
    with torch.no_grad():
        output = task(preprocessing.normalize(batch.images))
    kept = read_json(trained.description)["trained"]
    assert float(task.loss(output, batch.targets)) == pytest.approx(kept["val_loss"], rel=1e-5)
    assert float((output.argmax(1) == batch.targets).float().mean()) == pytest.approx(kept["val_top1"])
    best = max(rows(trained), key=lambda row: (row["val_top1"], -row["val_loss"]))
    assert (kept["epoch"], kept["val_loss"]) == (best["epoch"], pytest.approx(best["val_loss"]))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    trained: Run, config: TrainConfig, tmp_path: Path
) -> None:
    torch.rand(5)  # the state that the process happens to be in does not matter
    assert_same_training(trained, train(config, run=tmp_path / "again", progress=False))
    other = train(replace(config, seed=1), run=tmp_path / "other", progress=False)
    assert untimed(other) != untimed(trained)


def test_ctrl_c_leaves_a_resumable_run(
    trained: Run,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = Run(tmp_path / "run")
    handler = signal.getsignal(signal.SIGINT)
    Interruption(monkeypatch, epoch=1, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingError, match=r"stopped after 1 of 3 epochs; .*--resume") as caught:
        train(config, run=run, progress=False)
    assert "\n" not in str(caught.value)
    assert signal.getsignal(signal.SIGINT) is handler
    assert run.read().status == "training"
    assert not run.weights.exists()
    with pytest.raises(RunError, match="was interrupted; pass --resume"):
        train(config, run=run, progress=False)
    train(config, run=run, resume=True, progress=False)
    assert_same_training(trained, run)
    assert capfd.readouterr() == ("", "")


def test_sigterm_leaves_a_resumable_run(
    trained: Run, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Interruption(monkeypatch, epoch=2, act=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingError, match="stopped after 2 of 3 epochs"):
        train(config, run=tmp_path / "run", progress=False)
    assert_same_training(trained, train(config, run=tmp_path / "run", resume=True, progress=False))


def test_interrupted_before_the_first_epoch_ends(
    trained: Run, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Interruption(monkeypatch, epoch=0, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingError, match="stopped after 0 of 3 epochs"):
        train(config, run=tmp_path / "run", progress=False)
    assert_same_training(trained, train(config, run=tmp_path / "run", resume=True, progress=False))


def test_a_moved_run_can_be_resumed(
    trained: Run, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Interruption(monkeypatch, epoch=2, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingError):
        train(config, run=tmp_path / "before", progress=False)
    (tmp_path / "before").rename(tmp_path / "after")
    assert_same_training(trained, train(config, run=tmp_path / "after", resume=True, progress=False))


def test_a_finished_run_is_not_overwritten_by_accident(
    trained: Run, config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    with pytest.raises(RunError, match=r"already trained; .*--overwrite"):
        train(config, run=trained, progress=False)
    assert train(config, run=trained, resume=True, progress=True) == trained
    assert "already trained" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before


def test_overwrite_deletes_the_run_and_nothing_else(config: TrainConfig, tmp_path: Path) -> None:
    short = replace(config, epochs=1)
    run = train(short, run=tmp_path / "run", progress=False)
    every = [run.onnx("int8"), run.onnx("w4a8"), *(run.exported(format) for format in FORMATS)]
    records = [path.with_name(path.name + ".json") for path in every]
    every += [*records, run.exported("openvino").with_suffix(".bin"), run.onnx("float").with_name("model.onnx.data")]
    every += [run.evaluation, run.predictions, run.scores, run.robustness, run.quantization, run.partial_quantization]
    every += [run.bench_rows, run.report_page, run.figures / "confusion.png", run.explanation / "arrays.npz"]
    every += [
        run.folder / ".model-h4lf_ofi.safetensors",
        run.figures / ".confusion-h4lf_ofi.png",
        run.quantized / "w4" / "model.onnx",
    ]
    for stale in every:
        stale.parent.mkdir(parents=True, exist_ok=True)
        stale.write_text("of the old weights")
    every.append(Path(shutil.copy(run.description, run.quantized / "w4")))
    kept = [run.folder / "notes.txt", run.figures / "drawing.svg", run.checkpoints / "mine.txt", run.folder / "my.onnx"]
    kept += [run.figures / "drawing.png", run.explanation / "mine.png", run.onnx("mine"), run.folder / ".notes-old.txt"]
    for path in kept:
        path.write_text("mine")
    run.update(stages={"Train": 1})
    train(replace(short, seed=1), run=run, overwrite=True, progress=False)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        ".notes-old.txt",
        "checkpoints",
        "explanation",
        "figures",
        "images.csv",
        "metrics.csv",
        "model.mine.onnx",
        "model.safetensors",
        "my.onnx",
        "notes.txt",
        "run.json",
        "tensorboard",
    ]
    assert not [path for path in every if path.exists()]
    assert all(path.read_text() == "mine" for path in kept)
    assert run.read().seed == 1
    assert run.read().stages == {}


def test_a_bad_configuration_does_not_destroy_the_run_it_would_overwrite(trained: Run, config: TrainConfig) -> None:
    with pytest.raises(ImageSizeError):
        train(replace(config, image_size=17), run=trained, overwrite=True, progress=False)
    assert trained.weights.exists()


def test_a_folder_of_other_things_is_left_alone(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("precious")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="is not empty and is not a run"):
            train(config, run=tmp_path, progress=False, **options)
    with pytest.raises(RunError, match="is a file"):
        train(config, run=tmp_path / "photo.jpg", progress=False)


def test_resume_and_overwrite_contradict(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only one of"):
        train(config, run=tmp_path / "run", resume=True, overwrite=True)


def test_resuming_with_other_settings_is_refused(trained: Run, config: TrainConfig) -> None:
    changed = replace(config, learning_rate=0.1, data=replace(config.data, seed=5))
    with pytest.raises(RunError, match=r"data\.seed 0 -> 5; learning_rate 0\.02 -> 0\.1; pass the same"):
        train(changed, run=trained, resume=True, progress=False)
    train(replace(config, num_workers=1), run=trained, resume=True, progress=False)  # changes nothing in the result


def test_resuming_with_other_images_is_refused(
    config: TrainConfig, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(images, tmp_path / "images")
    config = replace(config, data=replace(config.data, path=str(folder)))
    Interruption(monkeypatch, epoch=1, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingError):
        train(config, run=tmp_path / "run", progress=False)
    (folder / "red" / "00.png").unlink()
    with pytest.raises(RunError, match="other images"):
        train(config, run=tmp_path / "run", resume=True, progress=False)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = ClassificationTask.loss
    calls = 0

    def failing(task: ClassificationTask, output: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += task.training
        return loss(task, output, targets) * (float("nan") if calls == 5 else 1.0)

    monkeypatch.setattr(ClassificationTask, "loss", failing)
    run = Run(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"nan at step 5 \(epoch 2\); lower learning_rate=0\.02"):
        train(config, run=run, progress=False)
    checkpoint = read_checkpoint(training_files(run).last)
    assert [row["epoch"] for row in recorded_rows(checkpoint)] == [1]
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())


def test_a_divergence_in_the_last_step_is_no_success(config: TrainConfig, tmp_path: Path) -> None:
    wild = replace(config, epochs=1, batch_size=24, learning_rate=1e30, gradient_clip=0.0)
    run = Run(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"the validation loss became (nan|inf) in epoch 1; lower learning_rate=1e"):
        train(wild, run=run, progress=False)
    assert run.read().status == "training"
    assert not run.weights.exists()


def test_a_validation_loss_that_is_no_number_in_one_batch_stops_the_training(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = ClassificationTask.loss
    calls = 0

    def failing(task: ClassificationTask, output: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += not task.training
        return loss(task, output, targets) * (float("nan") if calls == 3 and not task.training else 1.0)

    monkeypatch.setattr(ClassificationTask, "loss", failing)
    run = Run(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"the validation loss became nan in epoch 2; lower"):
        train(replace(config, batch_size=4), run=run, progress=False)
    assert [row["epoch"] for row in recorded_rows(read_checkpoint(training_files(run).last))] == [1]


def test_weights_that_are_no_numbers_do_not_become_the_model(config: TrainConfig, tmp_path: Path) -> None:
    run = train(replace(config, epochs=1, keep="last"), run=tmp_path / "run", progress=False)
    run.weights.unlink()
    checkpoint = read_checkpoint(training_files(run).last)
    checkpoint["state_dict"]["task.backbone.head.bias"][0] = float("inf")
    torch.save(checkpoint, training_files(run).last)
    with pytest.raises(TrainingError, match=r"1 weights of epoch 1 are not finite \(backbone.head.bias, "):
        finish(run, replace(config, keep="last"))
    assert not run.weights.exists()


ACCURACY = Score(name="top1", title="top-1")
ERROR = Score(name="error", title="error", higher_is_better=False)


@pytest.mark.parametrize(
    ("score", "values", "losses", "best"),
    [
        (ACCURACY, [math.nan, 0.5, math.nan], [1, 1, 1], 2),
        (ACCURACY, [0.5, math.nan, 0.4], [1, 1, 1], 1),
        (ERROR, [math.nan, 0.5, 0.6], [1, 1, 1], 2),
        (ACCURACY, [0.5, 0.5, 0.5], [2, 1, math.nan], 2),
        (ACCURACY, [math.nan, math.nan, math.nan], [2, 1, 3], 2),
        (ACCURACY, [math.nan, math.nan], [math.nan, math.nan], 2),
        (ACCURACY, [0.5, 0.5], [1, 1], 2),
        (ERROR, [math.inf, math.nan], [1, 1], 1),
    ],
)
def test_the_best_epoch_has_a_number(score: Score, values: list[float], losses: list[float], best: int) -> None:
    rows = [
        {"epoch": float(i), f"val_{score.name}": value, "val_loss": loss}
        for i, (value, loss) in enumerate(zip(values, losses, strict=True), start=1)
    ]
    assert best_row(rows, score)["epoch"] == best


@pytest.fixture
def small_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_line(config: TrainConfig, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(VitrailError, match=r"cannot write .*best.ckpt: the disk is full.*; free space") as caught:
        train(config, run=run, progress=False)
    assert "\n" not in str(caught.value)
    assert list(run.checkpoints.iterdir()) == []


RESUME = r"and continue with: vitrail train --run \S+ --resume \(and the same options\)"


@pytest.mark.parametrize(
    ("error", "fault", "advice"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            "the memory of this machine is too small",
            f"end other programs, {RESUME}; or start again with --overwrite and a lower batch_size=8",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "the GPU's memory is too small",
            f"end other programs that use it, {RESUME}; or start again with --overwrite and a lower batch_size=8",
        ),
        (
            RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"),
            "another process of this training ended or cannot be reached",
            f"read its own message, {RESUME}",
        ),
    ],
)
def test_a_fault_of_the_machine_is_one_line_and_training_goes_on_from_there(
    trained: Run,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    fault: str,
    advice: str,
) -> None:
    run = Run(tmp_path / "run")

    def fail() -> None:
        raise error

    Interruption(monkeypatch, epoch=1, act=fail)
    with pytest.raises(TrainingError, match=f"^{fault}; training was stopped after 1 of 3 epochs; {advice}$"):
        train(config, run=run, progress=False)
    assert_same_training(train(config, run=run, resume=True, progress=False), trained)


def worker_fails(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    load = batches._Augmented.__getitem__

    def failing(self: Any, key: tuple[int, int]) -> Any:
        if key[0] == 1:
            act()
        return load(self, key)

    monkeypatch.setattr(batches._Augmented, "__getitem__", failing)


def test_a_killed_worker_is_one_line(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker_fails(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(TrainingError, match=r"^a process that loads images was ended .* lower num_workers=1, and"):
        train(replace(config, num_workers=1), run=tmp_path / "run", progress=False)


def test_an_error_of_a_worker_is_told_without_its_traceback(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise DataError("a.png cannot be read: it has gone; check the path")

    worker_fails(monkeypatch, fail)
    with pytest.raises(DataError, match=r"^a\.png cannot be read: it has gone; check the path$"):
        train(replace(config, num_workers=1), run=tmp_path / "run", progress=False)


def test_a_checkpoint_that_does_not_fit_into_memory_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    path.touch()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        read_checkpoint(path)


def test_a_damaged_checkpoint_is_named(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    Interruption(monkeypatch, epoch=1, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingError):
        train(config, run=run, progress=False)
    training_files(run).last.write_bytes(b"damaged")
    with pytest.raises(VitrailError, match=r"cannot read .*last.ckpt.*--overwrite"):
        train(config, run=run, resume=True, progress=False)


def test_fine_tuning_starts_from_given_weights(trained: Run, config: TrainConfig, tmp_path: Path) -> None:
    state = {
        name.removeprefix("backbone."): value
        for name, value in load_file(trained.weights).items()
        if not name.startswith("backbone.head")
    }
    from safetensors.torch import save_file

    full = {**state, "head.weight": torch.zeros(7, 16), "head.bias": torch.zeros(7)}
    save_file(full, tmp_path / "start.safetensors")
    still = replace(
        config,
        weights=str(tmp_path / "start.safetensors"),
        learning_rate=1e-12,
        epochs=1,
        weight_decay=0.0,
    )
    run = train(still, run=tmp_path / "run", progress=False)
    found = load_file(run.weights)
    name = "stages.0.downsample.proj.weight"
    torch.testing.assert_close(found[f"backbone.{name}"], state[name])
    assert found["backbone.head.weight"].shape == (2, 16)


def test_nothing_is_written_before_the_data_is_known_to_be_good(config: TrainConfig, tmp_path: Path) -> None:
    missing = DataConfig(path=str(tmp_path / "no"))
    for data, message in ((missing, "does not exist"), (replace(config.data, val_fraction=1.0), "no training images")):
        with pytest.raises(DataError, match=message):
            train(replace(config, data=data), run=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values", [{"accelerator": "tpu"}, {"precision": "transformer-engine"}, {"strategy": "sideways"}, {"devices": -3}]
)
def test_hardware_that_is_not_there(values: dict[str, Any], config: TrainConfig, tmp_path: Path) -> None:
    name, value = next(iter(values.items()))
    with pytest.raises(ConfigError, match=f"{name}={value!r}.* do not work here") as caught:
        train(replace(config, **values), run=tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)


def test_automatic_precision(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(available: bool, native: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: native and options)

    machine(available=False, native=False)
    assert resolve_precision(config) == "32-true"
    machine(available=True, native=False)
    assert resolve_precision(config) == "32-true"
    machine(available=True, native=True)
    assert resolve_precision(config) == "bf16-mixed"
    assert resolve_precision(replace(config, accelerator="cpu")) == "32-true"
    assert resolve_precision(replace(config, precision="16-mixed")) == "16-mixed"


def test_the_command_that_repeats_a_run_names_no_folder_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/.venv/bin/vitrail", "train", "--data", "my photos"])
    assert typed_command() == "vitrail train --data 'my photos'"
    monkeypatch.setattr("sys.argv", ["/somewhere/script.py"])
    assert typed_command() == "/somewhere/script.py"
