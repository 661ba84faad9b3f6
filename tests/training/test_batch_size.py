"""The largest batch: a power of two, bounded by images, a limit and memory."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, DataSplits, load_data
from vitrail.models import create_model
from vitrail.tasks import ClassificationTask
from vitrail.training import TrainConfig, batch_size
from vitrail.training.batch_size import ChosenBatch, choose_batch_size

CONFIG = TrainConfig(model="edgevit_nano_stride2", batch_size="auto")


@pytest.fixture(scope="module")
def signs() -> DataSplits[Any]:
    return load_data(DataConfig())


def choose(signs: DataSplits[Any], config: TrainConfig = CONFIG, **given: Any) -> ChosenBatch:
    task = ClassificationTask(create_model("edgevit_nano_stride2", num_classes=10, image_size=32), signs.classes)
    preprocessing = Preprocessing(image_size=(32, 32))
    return choose_batch_size(task, config, signs, preprocessing, torch.device("cpu"), **given)


def free_memory(monkeypatch: pytest.MonkeyPatch, megabytes: float) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=megabytes * 1e6))


def test_a_cpu_has_a_limit(signs: DataSplits[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    free_memory(monkeypatch, 1e6)
    assert choose(signs) == ChosenBatch(64, "Batch size 64 is the largest power of two for a limit of 64")


def test_memory_and_images_bound_it(signs: DataSplits[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for megabytes in (250, 150, 75, 1):
        free_memory(monkeypatch, megabytes)
        sizes.append(choose(signs).size)
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == 1
    free_memory(monkeypatch, 1e6)
    few = DataSplits(signs.classes, signs.train.subset(range(11)), signs.val, None, "", (), "")
    assert choose(few) == ChosenBatch(8, "Batch size 8 is the largest power of two for 11 training images")


def test_a_gpu_tries_until_its_memory_is_full(signs: DataSplits[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretended GPU, on the CPU: it holds 40 images, or throws out at 100."""
    sizes: list[int] = []
    loss = ClassificationTask.training_answer

    def noted(task: ClassificationTask, images: torch.Tensor, targets: Any) -> torch.Tensor:
        if len(images) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(images))
        return loss(task, images, targets)

    monkeypatch.setattr(ClassificationTask, "training_answer", noted)
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 50))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: sizes[-1])
    assert tried(signs) == 32  # 64 fill more than 0.8 x 50
    assert sizes == [2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 1000))
    assert tried(signs) == 64  # 128 do not fit at all
    assert tried(signs, largest=16) == 16


def tried(signs: DataSplits[Any], largest: int = 512) -> int:
    task = ClassificationTask(create_model("edgevit_nano_stride2", num_classes=10, image_size=32), signs.classes)
    loader = batch_size._Loader(CONFIG, signs, Preprocessing(image_size=(32, 32)))
    return batch_size._tried(task, loader, torch.device("cpu"), "32-true", largest)


def test_it_draws_no_numbers_and_leaves_the_task_alone(signs: DataSplits[Any]) -> None:
    torch.manual_seed(0)
    choose(signs)
    after = torch.rand(3)
    torch.manual_seed(0)
    ClassificationTask(create_model("edgevit_nano_stride2", num_classes=10, image_size=32), signs.classes)
    assert torch.equal(after, torch.rand(3))


def test_several_processes_are_told_a_number(signs: DataSplits[Any]) -> None:
    with pytest.raises(ConfigError, match="batch_size='auto' is chosen for one device, and there are 2; give a number"):
        choose(signs, world_size=2)


@pytest.mark.parametrize(("value", "kept"), [("8", 8), (8, 8), ("auto", "auto")])
def test_values(value: Any, kept: Any) -> None:
    assert TrainConfig(batch_size=value).batch_size == kept


@pytest.mark.parametrize("value", ["many", 0, -4])
def test_values_that_are_none(value: Any) -> None:
    with pytest.raises(ConfigError, match=f"batch_size={value!r} is not allowed; it must be at least 1, or auto"):
        TrainConfig(batch_size=value)
