"""A task and its opponent, trained in turns.

Source: MaxViT, appendix B.4, and HiT: non-saturating logistic loss, R1, Adam with betas (0, 0.99) and a constant rate.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.core.types import Batch, Preprocessing
from vitrail.models.discriminator import discriminator_loss, generator_loss, gradient_penalty
from vitrail.models.maxvit_gan import join_latent
from vitrail.tasks import GenerationTask, Task
from vitrail.training.config import TrainConfig
from vitrail.training.module import TrainingModule

BETAS = (0.0, 0.99)


class AdversarialModule(TrainingModule):
    """The same epochs, checkpoints, averages and scores as of any task, with two optimisers in a step.

    The moving average covers the opponent too, which nobody looks at; what is saved as the model is the task alone.
    """

    task: GenerationTask

    def __init__(self, task: Task, config: TrainConfig, preprocessing: Preprocessing) -> None:
        super().__init__(task, config, preprocessing)
        assert isinstance(task, GenerationTask)
        self.opponent = task.make_opponent().to(memory_format=torch.channels_last)
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        rate = self.config.learning_rate
        return [torch.optim.Adam(part.parameters(), lr=rate, betas=BETAS) for part in (self.task, self.opponent)]

    def on_fit_start(self) -> None:
        """
        Raises:
            ConfigError: several devices; the two backward passes of a step are not synchronised.
        """
        if self.trainer.world_size > 1:
            raise ConfigError(
                f"{self.trainer.world_size} devices: an adversarial task is trained on one; pass --devices 1"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = self._prepare(batch), batch.targets["label"]
        optimizers: Any = self.optimizers()
        task, opponent = optimizers
        step = self.global_step // 2  # every optimiser counts
        against = self._opponent_loss(images, labels, step)
        self._take(opponent, against, step)
        self.opponent.requires_grad_(False)
        loss = generator_loss(self.opponent(self.task(self._latents(labels)), labels))
        self._take(task, loss, step)
        self.opponent.requires_grad_(True)
        self.train_loss.update(loss.detach(), len(images))
        self.log_dict({"loss": loss, "opponent_loss": against}, prog_bar=True, batch_size=len(images))
        return loss.detach()

    def _opponent_loss(self, images: Tensor, labels: Tensor, step: int) -> Tensor:
        """With R1 at every so many steps, and so many times as heavy then."""
        options = self.task.options
        with torch.no_grad():
            fake = self.task(self._latents(labels))
        loss = discriminator_loss(self.opponent(images, labels), self.opponent(fake, labels))
        if options.r1_weight and step % options.r1_every == 0:
            loss = loss + options.r1_weight * options.r1_every * gradient_penalty(self.opponent, images, labels)
        return loss

    def _latents(self, labels: Tensor) -> Tensor:
        noise = torch.randn(len(labels), self.task.backbone.config.latent_dim, device=labels.device)
        return join_latent(noise, labels, self.task.num_labels)

    def _take(self, optimizer: LightningOptimizer, loss: Tensor, step: int) -> None:
        self.check(loss, step + 1)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
