"""StyleGAN2's residual discriminator, as HiT and MaxViT-GAN use it: is a picture real?

Papers: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958; Zhao et
al., "Improved Transformer for High-Resolution GANs" (HiT), NeurIPS 2021, arXiv:2106.07631: widths, no minibatch
statistics, no equalised learning rate. The class enters by projection (Miyato and Koyama, "cGANs with Projection
Discriminator", ICLR 2018, arXiv:1802.05637), which neither has.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.extras import import_extra

LAST = 4
"""Pixels a side where the halving ends."""

WIDEST = 512
SLOPE = 0.2


def width_at(side: int, multiplier: float) -> int:
    """Channels at a resolution: 512 up to 32 pixels, halved with every doubling after it."""
    return max(round(min(WIDEST, WIDEST * 32 // side) * multiplier), 8)


def blur_pool(channels: int) -> nn.Module:
    """Half the size without aliasing: the filter 1 3 3 1 in both directions (Zhang, ICML 2019), with zeros around.

    Raises:
        MissingDependencyError: timm is not installed.
    """
    timm = import_extra("timm.layers.blur_pool", "timm", "generation")
    # reflected borders have no reproducible gradient on a GPU
    pool = timm.BlurPool2d(channels, filt_size=4, stride=2, pad_mode="constant")
    pool.padding = [1, 1, 1, 1]  # timm pads even filters by one more, so that 32 pixels would become 17
    return pool


class ResidualHalving(nn.Module):
    """Two convolutions and half the resolution, beside a shortcut; the sum keeps its variance."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, in_dim, 3, padding=1)
        self.conv2 = nn.Conv2d(in_dim, dim, 3, padding=1)
        self.shortcut = nn.Conv2d(in_dim, dim, 1, bias=False)
        self.pool = blur_pool(in_dim)
        self.act = nn.LeakyReLU(SLOPE)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        out = self.act(self.conv2(self.pool(self.act(self.conv1(x)))))
        return (out + self.shortcut(self.pool(x))) / math.sqrt(2)


class Discriminator(nn.Module):
    """Pictures to one number each: the larger, the more real.

    Args:
        side: pixels a side, a power of 2 from 8 on.
        num_classes: number of classes; 0 where the pictures have none.
        multiplier: factor of all widths.

    Raises:
        ConfigError: another side, or a multiplier that is not positive.
    """

    def __init__(self, side: int, num_classes: int = 0, multiplier: float = 1.0) -> None:
        super().__init__()
        if side < 2 * LAST or side & (side - 1) or multiplier <= 0:
            raise ConfigError(f"pictures of {side} pixels, width times {multiplier}: need 8, 16, 32, ..., and above 0")
        sides = [side // 2**i for i in range(int(math.log2(side // LAST)) + 1)]
        widths = [width_at(n, multiplier) for n in sides]
        self.act = nn.LeakyReLU(SLOPE)
        self.from_rgb = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualHalving(widths[i], widths[i + 1]) for i in range(len(widths) - 1)))
        self.conv = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.fc = nn.Linear(widths[-1] * LAST**2, widths[-1])
        self.out = nn.Linear(widths[-1], 1)
        self.classes = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=widths[-1] ** -0.5)

    def forward(self, pictures: Float[Tensor, "b 3 h w"], labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Scores (b,); ``labels`` are only used where there are classes."""
        x = self.act(self.conv(self.blocks(self.act(self.from_rgb(pictures)))))
        features = self.act(self.fc(x.flatten(1)))
        scores = self.out(features).squeeze(1)
        return scores if self.classes is None else scores + (self.classes(labels) * features).sum(1)


def generator_loss(fake_scores: Tensor) -> Tensor:
    """Non-saturating logistic loss (Goodfellow et al. 2014): -log sigmoid of the scores of generated pictures."""
    return nn.functional.softplus(-fake_scores).mean()


def discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Logistic loss: real pictures shall have positive scores, generated ones negative."""
    return nn.functional.softplus(-real_scores).mean() + nn.functional.softplus(fake_scores).mean()


def gradient_penalty(discriminator: nn.Module, pictures: Tensor, labels: Tensor) -> Tensor:
    """R1 (Mescheder et al., ICML 2018): mean over real pictures of the squared norm of the score's gradient.

    As in HiT's code, without the factor of 1/2.
    """
    pictures = pictures.detach().requires_grad_()
    scores = discriminator(pictures, labels)
    (slope,) = torch.autograd.grad(scores.sum(), pictures, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()
