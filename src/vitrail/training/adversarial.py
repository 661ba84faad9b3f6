"""Training of a generator and its discriminator in turn.

Source: MaxViT, appendix B.4, and HiT: Adam with betas (0, 0.99) and a constant rate.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.core.types import Batch, Preprocessing
from vitrail.tasks import AdversarialTask, Task
from vitrail.training.config import ResolvedConfig
from vitrail.training.module import TrainingModule

BETAS = (0.0, 0.99)


class AdversarialModule(TrainingModule):
    """Training with two optimisers per step; epochs, checkpoints, averages and scores are those of any task.

    The moving average includes the discriminator, but only the task is saved.
    """

    task: AdversarialTask

    def __init__(self, task: Task, config: ResolvedConfig, preprocessing: Preprocessing) -> None:
        super().__init__(task, config, preprocessing)
        assert isinstance(task, AdversarialTask)
        self.discriminator = task.make_discriminator().to(memory_format=torch.channels_last)
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        rate = self.config.learning_rate
        return [torch.optim.Adam(part.parameters(), lr=rate, betas=BETAS) for part in (self.task, self.discriminator)]

    def on_fit_start(self) -> None:
        """
        Raises:
            ConfigError: there are several devices; the two backward passes of a step are not synchronised.
        """
        if self.trainer.world_size > 1:
            raise ConfigError(
                f"{self.trainer.world_size} devices: an adversarial task is trained on one; pass --devices 1"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = self._prepare(batch)
        optimizers: Any = self.optimizers()
        task, discriminator = optimizers
        step = self.global_step // 2  # global_step counts the steps of both optimisers
        against = self.task.discriminator_loss(self.discriminator, images, batch.targets, step)
        self._take(discriminator, against, step)
        self.discriminator.requires_grad_(False)
        loss = self.task.generator_loss(self.discriminator, batch.targets)
        self._take(task, loss, step)
        self.discriminator.requires_grad_(True)
        self.train_loss.update(loss.detach(), len(images))
        self.log_dict({"loss": loss, "discriminator_loss": against}, prog_bar=True, batch_size=len(images))
        return loss.detach()

    def _take(self, optimizer: LightningOptimizer, loss: Tensor, step: int) -> None:
        self.check(loss, step + 1)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
