from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

from vitrail.core.errors import CheckpointError, ConfigError, RunError, VitrailError
from vitrail.core.types import Preprocessing
from vitrail.models import create_model
from vitrail.report import write_report
from vitrail.runs.evaluate import evaluate_run
from vitrail.runs.load import load_task
from vitrail.runs.open_teacher import class_names, open_teacher
from vitrail.runs.run import Run
from vitrail.runs.teaching import teacher_lines
from vitrail.runs.train import train
from vitrail.tasks import ClassificationTask, Task, answers_of
from vitrail.training import TrainConfig
from vitrail.training.distillation.answer_cache import AnswerCache, Shapes
from vitrail.training.distillation.config import DistillConfig
from vitrail.training.distillation.module_teacher import ModuleTeacher
from vitrail.training.module import TrainingModule

CLASSES = ("green", "red")
HOW = Preprocessing(image_size=(16, 16))
OPEN_BRACKET = {"vitrail.classes": "[", "vitrail.task": "{}", "vitrail.preprocessing": "{}"}


@pytest.fixture(scope="module")
def teacher(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(config, run=tmp_path_factory.mktemp("runs") / "teacher", progress=False)


def taught(config: TrainConfig, teacher: Run, **given: Any) -> TrainConfig:
    return replace(config, epochs=2, distill=DistillConfig(teacher=str(teacher.folder), **given))


def student(classes: tuple[str, ...] = CLASSES) -> ClassificationTask:
    return ClassificationTask(create_model("edgevit_test", num_classes=len(classes)), classes)


def write(
    path: Path,
    shape: tuple[Any, ...] = ("batch", 3, 16, 16),
    *,
    num_classes: int = 2,
    kind: int = TensorProto.FLOAT,
    extra: bool = False,
    softmax: bool = False,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Mean colour times a fixed matrix, of images in any layout and type."""
    weight = np.arange(3 * num_classes, dtype=np.float32).reshape(3, num_classes)
    axes = [1, 2] if shape[-1] == 3 else [2, 3]
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["features"], keepdims=0),
        helper.make_node("MatMul", ["features", "weight"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["logits"])
        if softmax
        else helper.make_node("Identity", ["raw"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], num_classes])]
    if extra:
        outputs.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, [shape[0], 3]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", kind, list(shape))],
        outputs,
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array(axes), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def pictures(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)


def expected(images: torch.Tensor, how: Preprocessing = HOW) -> torch.Tensor:
    return how.normalize(images).mean((2, 3)) @ torch.arange(6.0).view(3, 2)


def interrupt(monkeypatch: pytest.MonkeyPatch, *, epoch: int, batch: int) -> None:
    """Press Ctrl-C before a batch of an epoch, once."""
    step = TrainingModule.training_step

    def stopped(module: TrainingModule, images: Any, batch_idx: int) -> torch.Tensor:
        if (module.current_epoch, batch_idx) == (epoch, batch):
            monkeypatch.setattr(TrainingModule, "training_step", step)
            raise KeyboardInterrupt
        return step(module, images, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", stopped)


def test_a_student_keeps_who_taught_what_and_its_own_weights_alone(
    config: TrainConfig, teacher: Run, tmp_path: Path
) -> None:
    run = train(taught(config, teacher, teach=("logits", "features")), run=tmp_path / "student", progress=False)
    entry = run.read().teacher
    assert entry is not None
    assert entry.fingerprint == teacher.weights_hash
    assert entry.lessons == ("logits", "features")
    assert list(entry.weights) == ["logits", "features"]
    assert all(value > 0 for value in entry.weights.values())
    assert entry.num_params == sum(one.numel() for one in load_task(teacher).parameters())
    assert load_file(run.weights).keys() == load_file(teacher.weights).keys()
    assert run.metrics.read_text().startswith("epoch,learning_rate,train_loss,val_loss,train_loss_labels,")
    assert run.read().training.distill.teacher == str(teacher.folder)
    assert load_task(run).classes == CLASSES


def test_an_interrupted_student_resumes_bit_by_bit(
    config: TrainConfig, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = taught(config, teacher, teach=("logits", "tokens"))
    whole = train(told, run=tmp_path / "whole", progress=False)
    interrupt(monkeypatch, epoch=1, batch=1)
    with pytest.raises(VitrailError, match="stopped after 1 of 2 epochs"):
        train(told, run=tmp_path / "parts", progress=False)
    parts = train(told, run=tmp_path / "parts", resume=True, progress=False)
    first, second = load_file(whole.weights), load_file(parts.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)
    without = train(replace(config, epochs=2), run=tmp_path / "without", progress=False)
    other = load_file(without.weights)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_resumed_student_wants_the_teacher_that_it_began_with(
    config: TrainConfig, teacher: Run, tmp_path: Path
) -> None:
    told = taught(config, teacher)
    run = train(told, run=tmp_path / "student", progress=False)
    values = json.loads(run.description.read_text())
    values["status"], values["teacher"]["fingerprint"] = "training", "0" * 16
    run.description.write_text(json.dumps(values))
    with pytest.raises(RunError, match="has other weights than when this training began"):
        train(told, run=run, resume=True, progress=False)


def test_a_run_does_not_teach_itself(config: TrainConfig, teacher: Run) -> None:
    for name in (teacher.folder, teacher.weights):
        told = replace(config, distill=DistillConfig(teacher=str(name)))
        with pytest.raises(ConfigError, match="lies in the run folder"):
            train(told, run=teacher, overwrite=True, progress=False)
    assert teacher.weights.exists()


def test_the_first_lines_tell_the_teacher(
    config: TrainConfig, teacher: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(taught(config, teacher), epochs=1), run=tmp_path / "student", progress=True)
    printed = capsys.readouterr()
    assert "it teaches logits beside the labels" in printed.out + printed.err


@pytest.mark.usefixtures("config")
def test_weights_of_a_file_need_their_model(teacher: Run, tmp_path: Path) -> None:
    model = create_model("edgevit_test", num_classes=2)
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    with pytest.raises(ConfigError, match="for a file of weights give --teacher-model too"):
        open_teacher(DistillConfig(teacher=str(path)), student(), HOW)
    given = DistillConfig(teacher=str(path), teacher_model="edgevit_test", teacher_classes="red,green")
    opened = open_teacher(given, student(), HOW)
    assert opened.classes == ("red", "green")
    shown = opened.show(pictures()).output
    with torch.no_grad():
        torch.testing.assert_close(shown, model.eval()(model.preprocessing.normalize(pictures())))
    inner = open_teacher(DistillConfig(teacher=str(teacher.weights)), student(), HOW)
    assert isinstance(inner, ModuleTeacher)
    assert inner.classes == CLASSES
    unnamed = open_teacher(DistillConfig(teacher=str(path), teacher_model="edgevit_test"), student(), HOW)
    assert unnamed.classes == ()
    assert unnamed.levels
    with pytest.raises(ConfigError, match=r"names 3 classes, and the classifier of .* has another number of outputs"):
        open_teacher(replace(given, teacher_classes="a,b,c"), student(), HOW)
    with pytest.raises(CheckpointError):
        open_teacher(replace(given, teacher_model="vit_nano_patch4"), student(), HOW)
    with pytest.raises(ConfigError, match=r"a folder without a run\.json"):
        open_teacher(DistillConfig(teacher=str(tmp_path)), student(), HOW)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.pth", "nowhere/"])
@pytest.mark.usefixtures("config")
def test_a_teacher_that_is_not_there_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; give a run folder"):
        open_teacher(DistillConfig(teacher=str(tmp_path / name)), student(), HOW)


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (("batch", 3, 16, 16), TensorProto.FLOAT),
        ((1, 3, 16, 16), TensorProto.FLOAT),
        ((2, 3, "h", "w"), TensorProto.FLOAT),
        (("n", 16, 16, 3), TensorProto.FLOAT),
        (("n", 3, 16, 16), TensorProto.FLOAT16),
    ],
)
def test_onnx_files_of_any_layout_and_batch_size_teach(shape: tuple[Any, ...], kind: int, tmp_path: Path) -> None:
    path = write(tmp_path / "t.onnx", shape, kind=kind)
    opened = open_teacher(DistillConfig(teacher=str(path), teacher_classes="same"), student(), HOW)
    shown = opened.show(pictures()).output
    torch.testing.assert_close(shown, expected(pictures()), atol=2e-3, rtol=2e-3)


@pytest.mark.usefixtures("config")
def test_an_onnx_file_that_takes_bytes_gets_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.onnx", kind=TensorProto.UINT8)
    shown = open_teacher(DistillConfig(teacher=str(path)), student(), HOW).show(pictures()).output
    torch.testing.assert_close(shown, pictures().float().mean((2, 3)) @ torch.arange(6.0).view(3, 2))


@pytest.mark.usefixtures("config")
def test_an_onnx_file_says_its_classes_and_its_images(tmp_path: Path) -> None:
    how = Preprocessing(image_size=(16, 16), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    ours = {
        "vitrail.preprocessing": json.dumps(how.to_dict()),
        "vitrail.classes": '["red", "green"]',
        "vitrail.task": '{"name": "classification"}',
    }
    config = DistillConfig(teacher=str(write(tmp_path / "t.onnx", metadata=ours, extra=True)), teacher_output="logits")
    opened = open_teacher(config, student(), HOW)
    assert opened.classes == ("red", "green")
    torch.testing.assert_close(opened.show(pictures()).output, expected(pictures(), how))
    assert not any("WARNING" in line for line in teacher_lines(config, opened, ["logits"], student()))
    theirs = write(tmp_path / "u.onnx", metadata={"names": "{1: 'green', 0: 'red'}"})
    opened = open_teacher(DistillConfig(teacher=str(theirs)), student(), HOW)
    assert opened.classes == ("red", "green")
    lines = teacher_lines(DistillConfig(teacher=str(theirs)), opened, ["logits"], student())
    assert any("ImageNet's mean and deviation are taken" in line for line in lines)


@pytest.mark.usefixtures("config")
def test_probabilities_become_logits(tmp_path: Path) -> None:
    config = DistillConfig(teacher=str(write(tmp_path / "t.onnx", softmax=True)), teacher_classes="same")
    opened = open_teacher(config, student(), HOW)
    shown = opened.show(pictures()).output
    assert shown is not None
    torch.testing.assert_close(shown.softmax(1), expected(pictures()).softmax(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close((shown / 2).softmax(1), (expected(pictures()) / 2).softmax(1), atol=1e-4, rtol=1e-3)
    assert any("is probabilities" in line for line in teacher_lines(config, opened, ["logits"], student()))


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    ("changes", "given", "told"),
    [
        ({"extra": True}, {}, r"several outputs: features .*, logits .*; choose one with --teacher-output"),
        ({"extra": True}, {"teacher_output": "scores"}, "is no output of the teacher; it has features, logits"),
        ({}, {"teacher_classes": "a,b,c"}, "names 3 classes, and the teacher has 2 outputs"),
        ({"shape": ("n", 1, 16, 16)}, {}, "must have one input, images of 3 channels"),
        (
            {"metadata": {"vitrail.classes": "[", "vitrail.task": "{}", "vitrail.preprocessing": "{}"}},
            {},
            "metadata is damaged",
        ),
        ({"metadata": {"names": "os.system"}}, {}, "metadata is damaged"),
    ],
)
def test_what_an_onnx_teacher_cannot_be(
    changes: dict[str, Any], given: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.onnx"
    if changes.get("shape", (0, 3))[1] == 1:
        path = write_grey(path)
    else:
        write(path, **changes)
    with pytest.raises(ConfigError, match=told):
        open_teacher(DistillConfig(teacher=str(path), **given), student(), HOW)


def write_grey(path: Path) -> Path:
    node = helper.make_node("Identity", ["images"], ["logits"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 16, 16]) for name in ("images", "logits")]
    graph = helper.make_graph([node], "grey", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.usefixtures("config")
def test_a_damaged_onnx_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ConfigError, match="cannot be loaded as ONNX") as caught:
        open_teacher(DistillConfig(teacher=str(path)), student(), HOW)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("config")
def test_an_onnx_teacher_trains_a_student(config: TrainConfig, tmp_path: Path) -> None:
    path = write(tmp_path / "t.onnx", (2, 3, 16, 16))
    distill = DistillConfig(teacher=str(path), teacher_classes="same")
    run = train(replace(config, epochs=1, distill=distill), run=tmp_path / "student", progress=False)
    assert run.read().teacher is not None
    assert run.weights.exists()


def test_names_of_classes_come_from_a_file_or_a_list(tmp_path: Path) -> None:
    task: Task = ClassificationTask.__new__(ClassificationTask)
    torch.nn.Module.__init__(task)
    task.classes = CLASSES
    path = tmp_path / "names.txt"
    path.write_text("oak\n\n elm tree \n")
    assert class_names(str(path), task) == ("oak", "elm tree")
    assert class_names("oak, elm", task) == ("oak", "elm")
    assert class_names("same", task) == CLASSES
    assert class_names(None, task) == ()
    with pytest.raises(ConfigError, match="has 'oak' twice"):
        class_names("oak,oak", task)
    with pytest.raises(ConfigError, match="is no file, and no two names"):
        class_names("names.csv", task)


@pytest.mark.usefixtures("config")
def test_a_small_teacher_is_told(teacher: Run) -> None:
    config = DistillConfig(teacher=str(teacher.folder))
    big = ClassificationTask(create_model("edgevit_nano_stride2", num_classes=2), CLASSES)
    lines = teacher_lines(config, open_teacher(config, big, HOW), ["logits"], big)
    assert any("fewer than the student's" in line for line in lines)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each look of a teacher had."""
    looks: list[int] = []
    show = ModuleTeacher.show

    def noted(self: ModuleTeacher, images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        looks.append(len(images))
        return show(self, images, *args, **kwargs)

    monkeypatch.setattr(ModuleTeacher, "show", noted)
    return looks


def unmixed(config: TrainConfig, epochs: int) -> TrainConfig:
    return replace(config, epochs=epochs, augment=replace(config.augment, mixup_alpha=0.0))


def test_a_teacher_looks_once_at_each_view(
    config: TrainConfig, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = counted(monkeypatch)
    told = replace(unmixed(config, 5), distill=taught(config, teacher, cache_teacher=2, teach=("logits",)).distill)
    run = train(told, run=tmp_path / "kept", progress=False)
    assert sum(looks) == 1 + 2 * 24  # one to learn the shapes, then both views of the training images
    assert not list(run.checkpoints.glob("teacher-*"))
    looks.clear()
    train(replace(told, distill=replace(told.distill, cache_teacher=0)), run=tmp_path / "asked", progress=False)
    assert sum(looks) == 5 * 24


def test_kept_answers_are_those_of_the_view_that_the_student_sees(
    config: TrainConfig, teacher: Run, tmp_path: Path
) -> None:
    """With as many views as epochs the student sees the same pictures as without; answers are rounded alone."""
    told = replace(unmixed(config, 2), distill=taught(config, teacher, teach=("logits", "features")).distill)
    asked = train(told, run=tmp_path / "asked", progress=False)
    kept = train(replace(told, distill=replace(told.distill, cache_teacher=2)), run=tmp_path / "kept", progress=False)
    first, second = load_file(asked.weights), load_file(kept.weights)
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=2e-2, rtol=2e-2)


def test_kept_answers_outlive_an_interruption(
    config: TrainConfig, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = replace(unmixed(config, 3), distill=taught(config, teacher, cache_teacher=1).distill)
    whole = train(told, run=tmp_path / "whole", progress=False)
    looks = counted(monkeypatch)
    interrupt(monkeypatch, epoch=0, batch=2)
    with pytest.raises(VitrailError, match="stopped after 0 of 3 epochs"):
        train(told, run=tmp_path / "parts", progress=False)
    parts = train(told, run=tmp_path / "parts", resume=True, progress=False)
    assert sum(looks) == 2 + 24
    first, second = load_file(whole.weights), load_file(parts.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_file_system_that_reserves_nothing_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refused)
    cache = AnswerCache(tmp_path / "a.f16", Shapes(output=(700_000,), maps={}), num_views=1, num_images=2)
    assert (tmp_path / "a.f16").stat().st_size == cache.size_bytes == 2 * 2 * 700_001
    assert not cache.rows.any()


def test_a_teacher_may_move_while_its_student_is_interrupted(
    config: TrainConfig, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(teacher.folder, tmp_path / "before")
    told = replace(unmixed(config, 2), distill=DistillConfig(teacher=str(tmp_path / "before")))
    interrupt(monkeypatch, epoch=1, batch=0)
    with pytest.raises(VitrailError, match="stopped after 1 of 2 epochs"):
        train(told, run=tmp_path / "student", progress=False)
    (tmp_path / "before").rename(tmp_path / "after")
    moved = replace(told, distill=DistillConfig(teacher=str(tmp_path / "after")))
    assert train(moved, run=tmp_path / "student", resume=True, progress=False).weights.exists()


def test_mixed_images_have_no_answers_to_keep(config: TrainConfig, teacher: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mixes images, whose answers cannot be kept"):
        train(taught(config, teacher, cache_teacher=1), run=tmp_path / "student", progress=False)


def test_a_disk_without_room_is_told_before_the_first_step(
    config: TrainConfig, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distill = taught(config, teacher, cache_teacher=1).distill
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr("vitrail.training.distillation.answer_cache.shutil.disk_usage", lambda _: full)
    with pytest.raises(ConfigError, match=r"answers take 0\.0 MB, and .* has 0\.0 MB free; lower it"):
        train(replace(unmixed(config, 1), distill=distill), run=tmp_path / "student", progress=False)


def unlabelled(config: TrainConfig, **given: Any) -> TrainConfig:
    return replace(unmixed(config, 2), task="distillation", distill=DistillConfig(**given))


@pytest.mark.parametrize("teach", [(), ("logits",), ("features", "tokens")])
def test_a_teacher_alone_teaches_a_backbone(
    config: TrainConfig, teacher: Run, tmp_path: Path, teach: tuple[Any, ...]
) -> None:
    told = unlabelled(config, teacher=str(teacher.folder), teach=teach, cache_teacher=1)
    run = train(told, run=tmp_path / "backbone", progress=False)
    assert all(name.startswith("backbone.") for name in load_file(run.weights))
    rows = list(csv.DictReader(run.metrics.read_text().splitlines()))
    assert float(rows[-1]["val_imitation"]) > 0
    assert float(rows[-1]["train_loss_labels"]) == 0
    entry = run.read().teacher
    assert entry is not None
    assert entry.lessons == (teach or ("features",))
    started = train(replace(config, epochs=1, weights=str(run.folder)), run=tmp_path / "task", progress=False)
    assert started.weights.exists()


def test_a_taught_backbone_is_not_evaluated_without_its_teacher(
    config: TrainConfig, teacher: Run, tmp_path: Path
) -> None:
    run = train(unlabelled(config, teacher=str(teacher.folder)), run=tmp_path / "backbone", progress=False)
    with pytest.raises(ConfigError, match="train a task from it"):
        evaluate_run(run)
    task = load_task(run)
    (answer,) = answers_of(task).predict([pictures(1)[0]], run.read().preprocessing)
    assert len(answers_of(task).to_dict(answer)["features"]) == task.backbone.num_features


def test_an_onnx_file_without_labels_teaches_its_vector(config: TrainConfig, tmp_path: Path) -> None:
    path = write(tmp_path / "t.onnx")
    run = train(unlabelled(config, teacher=str(path)), run=tmp_path / "backbone", progress=False)
    entry = run.read().teacher
    assert entry is not None
    assert entry.lessons == ("logits",)


def test_what_needs_a_teacher_and_what_takes_none(config: TrainConfig, teacher: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learns from a teacher alone; give --teacher"):
        train(
            replace(config, task="distillation", augment=replace(config.augment, mixup_alpha=0.0)), run=tmp_path / "a"
        )
    told = replace(unlabelled(config, teacher=str(teacher.folder)), task="pretraining")
    with pytest.raises(ConfigError, match="task pretraining learns from no teacher"):
        train(told, run=tmp_path / "b", progress=False)
    with pytest.raises(ConfigError, match="needs labels of the student's own"):
        train(unlabelled(config, teacher=str(teacher.folder), teach=("hard",)), run=tmp_path / "c", progress=False)


def test_an_evaluation_tells_where_student_and_teacher_differ(
    config: TrainConfig, teacher: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied = tmp_path / "teacher"
    shutil.copytree(teacher.folder, copied)
    told = replace(config, epochs=1, distill=DistillConfig(teacher=str(copied)))
    run = train(told, run=tmp_path / "student", progress=False)
    found = evaluate_run(run)["findings"]
    classes, images = found["tables"][-2:]
    own, other, same = classes["rows"][0][2:]
    assert classes["rows"][0][:2] == ["all", 8]
    assert [row[0] for row in classes["rows"][1:]] == list(CLASSES)
    assert own == pytest.approx(evaluate_run(run)["reports"]["torch-float"]["top1"])
    assert other == pytest.approx(evaluate_run(teacher)["reports"]["torch-float"]["top1"])
    assert found["numbers"]["teacher_agreement"] == same
    distances = [row[-1] for row in images["rows"]]
    assert distances == sorted(distances, reverse=True)
    assert len(distances) == 8
    disagreeing = [row for row in images["rows"] if row[2] != row[3]]
    assert len(disagreeing) == round(8 * (1 - same))
    html = write_report(run).read_text()
    assert "Images where student and teacher differ most" in html
    shutil.rmtree(copied)
    assert "teacher_agreement" not in evaluate_run(run)["findings"]["numbers"]
    assert "cannot be opened, so that its answers are not compared" in caplog.text
