from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from vitrail.core.errors import DataError
from vitrail.core.types import Batch, Preprocessing
from vitrail.data import (
    AugmentConfig,
    DataConfig,
    ImageSet,
    LabelledImage,
    TrainLoader,
    calibration_images,
    eval_loader,
    load_data,
    train_loader,
)
from vitrail.data.loading import batches as batches_module

PREPROCESSING = Preprocessing(image_size=(24, 24))
SAMPLE = load_data(DataConfig())
FEW = SAMPLE.train.sample(22, 0)


def make(
    num_workers: int = 0, seed: int = 3, images: ImageSet = FEW, batch_size: int = 5, **augment: float
) -> TrainLoader:
    return train_loader(
        images,
        PREPROCESSING,
        AugmentConfig(**augment),
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
        num_classes=10,
    )


def epoch(loader: TrainLoader, number: int) -> list[Batch]:
    loader.set_epoch(number)
    return list(loader)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("mix", [{}, {"mixup_alpha": 0.5, "cutmix_alpha": 1.0}], ids=["hard", "soft"])
def test_an_epoch_is_a_function_of_seed_and_epoch_alone(mix: dict[str, float]) -> None:
    loader = make(**mix)
    first, second = epoch(loader, 0), epoch(loader, 1)
    assert not same(first, second)
    torch.manual_seed(99)  # neither history nor the global generator matters
    fresh = make(**mix)
    assert same(epoch(fresh, 1), second)
    assert same(epoch(fresh, 0), first)
    assert not same(epoch(make(seed=4, **mix), 0), first)


def test_workers_give_the_same_batches() -> None:
    alone, together = make(mixup_alpha=0.5), make(num_workers=2, mixup_alpha=0.5)
    for number in (0, 1, 0):
        assert same(epoch(alone, number), epoch(together, number))


def test_batches_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    epoch(make(cutmix_alpha=1.0), 0)
    list(eval_loader(FEW, PREPROCESSING, batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_image_once_an_epoch_and_the_rest_dropped() -> None:
    loader = make(batch_size=11)
    assert len(loader) == 2
    labels = torch.cat([batch.targets for batch in epoch(loader, 0)])
    assert sorted(labels.tolist()) == sorted(FEW.labels.tolist())
    assert [len(batch.images) for batch in epoch(make(batch_size=8), 0)] == [8, 8]
    assert [len(batch.images) for batch in epoch(make(batch_size=64), 0)] == [22]


def test_what_a_batch_is() -> None:
    batch = epoch(make(), 0)[0]
    assert (batch.images.shape, batch.images.dtype) == ((5, 3, 24, 24), torch.uint8)
    assert (batch.targets.shape, batch.targets.dtype) == ((5,), torch.int64)
    soft = epoch(make(mixup_alpha=0.5), 0)[0].targets
    assert soft.shape == (5, 10)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(5))


def test_processes_share_an_epoch_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = make(batch_size=5).sampler
    assert isinstance(sampler, DistributedSampler)  # or Lightning would put its own in its place
    whole = list(sampler)
    parts = []
    for rank in range(4):
        monkeypatch.setattr(batches_module, "_world", lambda rank=rank: (4, rank))
        parts.append(list(sampler))
    assert [len(part) for part in parts] == [5] * 4
    assert [key for keys in zip(*parts, strict=True) for key in keys] == whole[:20]  # joint batches of 20


def test_images_that_do_not_suffice_for_a_batch_fill_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = make(batch_size=64).sampler
    parts = []
    for rank in range(4):
        monkeypatch.setattr(batches_module, "_world", lambda rank=rank: (4, rank))
        parts.append(list(sampler))
    assert [len(part) for part in parts] == [6] * 4
    assert len(set().union(*parts)) == 22
    assert sum(len(set(part)) for part in parts) == 24  # 22 images and 2 repeated to fill up


def test_several_processes_take_as_many_steps_as_one_with_their_joint_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for replicas, batch_size, count in itertools.product((1, 2, 3), (1, 4, 5), range(15, 70)):
        monkeypatch.setattr(batches_module, "_world", lambda replicas=replicas: (replicas, 0))
        sampler = batches_module.EpochSampler(count, 0, batch_size)
        assert len(sampler) // batch_size == count // (replicas * batch_size)
        assert len(list(sampler)) == len(sampler)


def test_images_of_different_sizes_in_one_batch(tmp_path: Path) -> None:
    from PIL import Image

    paths = [tmp_path / f"{width}x{height}.png" for width, height in ((30, 50), (8, 8), (100, 24))]
    for path in paths:
        Image.new("RGB", tuple(map(int, path.stem.split("x"))), "red").save(path)
    images = ImageSet(records=[LabelledImage(name=path.name, source=path, label=i) for i, path in enumerate(paths)])
    (batch,) = eval_loader(images, PREPROCESSING, batch_size=3)
    assert batch.images.shape == (3, 3, 24, 24)
    (batch,) = epoch(make(images=images, batch_size=3, rand_augment_num_ops=0, random_erasing=0.0), 0)
    assert (batch.images[:, 0] == 255).all()


def test_evaluation_keeps_the_order_and_all_images() -> None:
    loader = eval_loader(FEW, PREPROCESSING, batch_size=5)
    assert isinstance(loader, DataLoader)
    batches = list(loader)
    assert torch.equal(torch.cat([batch.targets for batch in batches]), FEW.labels)
    assert [len(batch.images) for batch in batches] == [5, 5, 5, 5, 2]
    assert batches[0].images.dtype == torch.uint8


def test_calibration_images_are_chosen_by_seed() -> None:
    first = calibration_images(SAMPLE.train, PREPROCESSING, 6, 1)
    assert (first.shape, first.dtype) == ((6, 3, 24, 24), torch.float32)
    assert torch.equal(first, calibration_images(SAMPLE.train, PREPROCESSING, 6, 1))
    assert not torch.equal(first, calibration_images(SAMPLE.train, PREPROCESSING, 6, 2))
    assert torch.equal(first[:4], calibration_images(SAMPLE.train, PREPROCESSING, 4, 1))
    assert len(calibration_images(FEW, PREPROCESSING, 1000, 0)) == 22
    assert first.min() < -0.5  # normalised
    assert first.max() > 1.0


def test_nothing_to_load_is_an_error() -> None:
    none = FEW.subset([])
    with pytest.raises(DataError, match="no training images"):
        make(images=none)
    with pytest.raises(DataError, match="no images to evaluate on"):
        eval_loader(none, PREPROCESSING, batch_size=1)
    with pytest.raises(DataError, match="cannot take 3 calibration images from 0"):
        calibration_images(none, PREPROCESSING, 3, 0)
    with pytest.raises(DataError, match="cannot take 0"):
        calibration_images(FEW, PREPROCESSING, 0, 0)


@pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"
)  # Lightning 2.6's own
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_lightning_sets_the_epoch_through_the_sampler() -> None:
    from lightning.pytorch import LightningModule, Trainer

    seen: list[list[int]] = []

    class Recorder(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
            if batch_idx == 0:
                seen.append([])
            seen[-1] += batch.images.sum(dim=(1, 2, 3)).tolist()
            return self.layer(torch.ones(1, 1)).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(Recorder(), make(num_workers=1))
    for number, sums in enumerate(seen):
        assert sums == torch.cat([batch.images.sum(dim=(1, 2, 3)) for batch in epoch(make(), number)]).tolist()
    assert len(seen) == 2


UNEVEN = torch.tensor([0] * 20 + [1] * 3 + [3] * 2)


def balanced(batch_size: int = 5) -> batches_module.EpochSampler:
    return batches_module.EpochSampler(len(UNEVEN), 0, batch_size, order=batches_module.balanced_order(UNEVEN))


def test_each_class_comes_as_often() -> None:
    sampler = balanced()
    seen: set[int] = set()
    for number in range(4):
        sampler.set_epoch(number)
        keys = list(sampler)
        assert len(keys) == 25
        labels = UNEVEN[[index for _, index, _ in keys]]
        assert sorted(labels.bincount().tolist()) == [0, 8, 8, 9]
        assert len(set(keys)) == 25  # an image that comes again is told apart, and changed in another way
        times = [time for _, index, time in keys if index == 24]
        assert sorted(times) == list(range(len(times)))
        assert len(times) in (4, 5)  # of 8 or 9 draws of two images
        seen |= {index for _, index, _ in keys}
    assert len(seen) > 15  # other images of the large class each epoch


def test_a_balanced_epoch_is_a_function_of_seed_and_epoch_and_divided_among_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = balanced()
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != [(1, *key[1:]) for key in first]
    sampler.set_epoch(0)
    assert list(sampler) == first == list(balanced())
    parts = []
    for rank in range(2):
        monkeypatch.setattr(batches_module, "_world", lambda rank=rank: (2, rank))
        parts.append(list(sampler))
    assert [key for keys in zip(*parts, strict=True) for key in keys] == first[:24]


def test_an_image_that_comes_again_is_changed_in_another_way() -> None:
    loader = train_loader(
        FEW,
        PREPROCESSING,
        AugmentConfig(),
        batch_size=22,
        num_workers=0,
        seed=0,
        num_classes=10,
        order=lambda _: (torch.zeros(22, dtype=torch.int64), torch.arange(22)),
    )
    images = next(iter(loader)).images
    assert not torch.equal(images[0], images[1])


def test_joined_batches_drop_what_a_larger_batch_would() -> None:
    for count, batch_size, accumulate in itertools.product(range(1, 40), (1, 3, 5), (1, 2, 4)):
        sampler = batches_module.EpochSampler(count, 0, batch_size, accumulate)
        step = batch_size * accumulate
        steps = len(sampler) // step if len(sampler) >= step else 1
        assert steps == max(count // step, 1)
        assert sampler.images_per_step == min(step, count)
