"""The Lightning module of a task."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torchmetrics import MeanMetric

from vitrail.core.errors import TrainingError
from vitrail.core.types import Batch, Preprocessing
from vitrail.data import TrainLoader
from vitrail.tasks import Task
from vitrail.training.config import ResolvedConfig
from vitrail.training.distillation.distiller import Distiller
from vitrail.training.freezing import frozen_part
from vitrail.training.optimizer import learning_rate_factor, parameter_groups
from vitrail.training.time_limit import TimeLimit


class TrainingModule(LightningModule):
    """Loss, metrics, optimiser and schedule of one task.

    All random numbers of an epoch follow from (seed, epoch, rank), so that a resumed run repeats an uninterrupted one.

    Attributes:
        limit: limit of time that decides the number of steps; None leaves it to the epochs.
        distiller: what a teacher adds to the loss; None without a teacher.
    """

    limit: TimeLimit | None = None

    def __init__(
        self, task: Task, config: ResolvedConfig, preprocessing: Preprocessing, distiller: Distiller | None = None
    ) -> None:
        super().__init__()
        self.distiller = distiller
        # Convolutions with LayerNorms between them train a third faster with channels last on a CPU.
        self.task = task.to(memory_format=torch.channels_last)
        self.config = config
        self.preprocessing = preprocessing
        self.frozen = frozen_part(task, config)
        self.num_frozen_steps = math.inf  # until the number of all steps is known
        if not config.freeze_epochs:
            self.frozen.hold()  # before the optimiser takes the parameters; what is released later stays in it
        self.train_loss = MeanMetric()
        self.val_loss = MeanMetric(nan_strategy="disable")  # else it passes over what is no number
        self.val_metrics = task.metrics()
        self.part_losses: dict[str, MeanMetric] = {}
        self.scores: dict[str, float] = {}

    def configure_optimizers(self) -> Any:
        config = self.config
        groups = parameter_groups(
            self.task,
            self.task.backbone,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
        )
        if self.distiller is not None and (taught := list(self.distiller.parameters())):
            groups.append({"params": taught, "lr": config.learning_rate, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups)
        num_steps = int(self.trainer.estimated_stepping_batches)
        num_warmup_steps = round(num_steps * min(config.warmup_epochs / config.epochs, 1 / 4))

        released = round(num_steps * config.freeze_epochs / config.epochs)
        self.num_frozen_steps = released or math.inf

        def factor(step: int) -> float:
            whole = learning_rate_factor(step, num_steps=num_steps, num_warmup_steps=num_warmup_steps)
            if self.limit is not None and self.limit.decision is not None:
                whole = self.limit.decision.factor(step)
            again = released and step >= released  # what is released meets small steps first
            return whole * min(1.0, (step + 1 - released) / (num_warmup_steps + 1)) if again else whole

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        seed_everything(self.config.seed, self.current_epoch, self.global_rank)
        self.train_loss.reset()
        self.part_losses.clear()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.frozen.hold(self.global_step < self.num_frozen_steps, gradients=self._drops_gradients)

    def on_after_backward(self) -> None:
        if self._drops_gradients and self.global_step < self.num_frozen_steps:
            self.frozen.drop_gradients()

    @property
    def _drops_gradients(self) -> bool:
        """Several processes decide once which gradients they share, so that what is released later has them always."""
        return self.config.freeze_epochs > 0 and self.trainer.world_size > 1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        self.check(loss, self.global_step + 1)
        self.train_loss.update(loss.detach(), len(batch.images))
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.images))
        return loss if self.config.accumulate == 1 else loss * self._share(len(batch.images))

    def _loss(self, batch: Batch) -> Tensor:
        """What the step minimises."""
        images = self._prepare(batch)
        if self.distiller is None:
            return self.task.training_answer(images, batch.targets)[0]
        loss, parts = self.distiller(self.task, images, batch)
        for name, part in parts.items():
            self.part_losses.setdefault(name, MeanMetric().to(part.device)).update(part, len(batch.images))
        return loss

    def _share(self, num_images: int) -> float:
        """The batch's share of the images of a step, times the batches of one: Lightning divides by that number, also
        where fewer or smaller batches make a step."""
        loader = self.trainer.train_dataloader
        assert isinstance(loader, TrainLoader)
        return self.config.accumulate * num_images / loader.images_per_step

    def check(self, loss: Tensor, step: int) -> None:
        """
        Raises:
            TrainingError: the loss is not finite. Checkpoints of earlier epochs stay.
        """
        if not torch.isfinite(loss):
            raise diverged(
                f"the loss became {loss.item()} at step {step} (epoch {self.current_epoch + 1})", self.config
            )

    def on_validation_epoch_start(self) -> None:
        self.val_loss.reset()
        self.val_metrics.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images = self._prepare(batch)
        if self.task.only_taught:
            assert self.distiller is not None
            loss, _ = self.distiller(self.task, images, batch)
            self.val_loss.update(loss, len(batch.images))
            self.val_metrics.update(batch.images, loss)
            return
        output = self.task(self.task.inputs(images, batch.targets))
        self.val_loss.update(self.task.loss(output, batch.targets), len(batch.images))
        self.val_metrics.update(output, batch.targets)

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics in every process; they are summed over all processes.

        Raises:
            TrainingError: the loss is not finite, as after a last step that diverged. Earlier checkpoints stay.
        """
        scores = {"train_loss": self.train_loss.compute(), "val_loss": self.val_loss.compute()}
        scores |= {f"train_loss_{name}": part.compute() for name, part in self.part_losses.items()}
        if not torch.isfinite(scores["val_loss"]):
            told = f"the validation loss became {scores['val_loss'].item()} in epoch {self.current_epoch + 1}"
            raise diverged(told, self.config)
        # Other metrics are details (one value per class) for the evaluation.
        computed = self.val_metrics.compute()
        scores |= {f"val_{score.name}": computed[score.name] for score in self.task.scores}
        self.scores = {name: float(value) for name, value in scores.items()}

    def _prepare(self, batch: Batch) -> Tensor:
        return self.preprocessing.normalize(batch.images).contiguous(memory_format=torch.channels_last)


def diverged(told: str, config: ResolvedConfig) -> TrainingError:
    """The error of a training that diverged, from what was seen, with the remedy."""
    return TrainingError(
        f"{told}; lower learning_rate={config.learning_rate} or gradient_clip={config.gradient_clip} and start over"
    )


def seed_everything(seed: int, epoch: int = 0, rank: int = 0) -> None:
    """Seed the generators of Python, NumPy and PyTorch (all devices) for one epoch of one process."""
    # NumPy's global generator takes at most 32 bits.
    value = int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 (third parties draw from the global generator)
    torch.manual_seed(value)


def weight_average(decay: float) -> WeightAveraging:
    """Exponential moving average of weights and running statistics, validated and saved instead of the weights.

    The decay is at most (1 + n) / (10 + n) at the n-th step, so that the random initial weights lose their influence in
    short runs too (as in TensorFlow's ExponentialMovingAverage).
    """
    return WeightAveraging(multi_avg_fn=_average_with(decay))


def _average_with(decay: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def average(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, weight)
        else:
            for average, value in zip(averages, values, strict=True):  # counters of batches
                average.copy_(value)

    return average
