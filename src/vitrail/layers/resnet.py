"""The ResNet before the transformer of hybrid models (BiT: weight standardisation, group normalisation).

Source: google-research/vision_transformer @ c6de1e5 `models_resnet.py` for the structure, timm 1.0.31 for the numbers
(eps 1e-8 inside the square root of the standardisation, eps 1e-5 in the norms; JAX has 1e-5 outside and 1e-6).
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.layers.conv import Conv2dSame, same_padding


class StandardizedConv2d(Conv2dSame):
    """A convolution whose filters are standardised (mean 0, variance 1) before use; no bias, SAME padding."""

    def __init__(self, in_dim: int, dim: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_dim, dim, kernel_size, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        variance = self.weight.var((1, 2, 3), keepdim=True, correction=0)
        return self.convolve(x, (self.weight - mean) * (variance + 1e-8).rsqrt())


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1; normalised after each, activated after the sum."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = StandardizedConv2d(in_dim, dim // 4, 1)
        self.norm1 = nn.GroupNorm(32, dim // 4)
        self.conv2 = StandardizedConv2d(dim // 4, dim // 4, 3, stride)
        self.norm2 = nn.GroupNorm(32, dim // 4)
        self.conv3 = StandardizedConv2d(dim // 4, dim, 1)
        self.norm3 = nn.GroupNorm(32, dim)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_dim != dim:
            self.shortcut = nn.Sequential(StandardizedConv2d(in_dim, dim, 1, stride), nn.GroupNorm(32, dim))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


class ResNetStem(nn.Module):
    """Root (7x7 stride 2, max pooling) and stages of widths 256, 512, 1024, 2048, each but the first with stride 2.

    Attributes:
        dim: channels of the output; 64 without stages.
        stride: 4 without stages or with one, doubled by every further one.
    """

    def __init__(self, in_chans: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = StandardizedConv2d(in_chans, 64, 7, 2)
        self.norm = nn.GroupNorm(32, 64)
        self.stages = nn.Sequential()
        self.dim, self.stride = 64, 4
        for index, depth in enumerate(depths):
            stage = nn.Sequential()
            for block in range(depth):
                stride = 2 if index > 0 and block == 0 else 1
                stage.append(Bottleneck(self.dim, 256 * 2**index, stride))
                self.dim, self.stride = 256 * 2**index, self.stride * stride
            self.stages.append(stage)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        x = F.relu(self.norm(self.conv(x)))
        (top, bottom), (left, right) = (same_padding(size, 3, 2) for size in x.shape[-2:])
        x = F.pad(x, (left, right, top, bottom), value=float("-inf"))
        return self.stages(F.max_pool2d(x, 3, 2))


class HybridEmbed(nn.Module):
    """Patches of a ResNet's feature map instead of the image."""

    def __init__(self, in_chans: int, dim: int, patch_size: int, resnet_depths: tuple[int, ...]) -> None:
        super().__init__()
        self.resnet = ResNetStem(in_chans, resnet_depths)
        self.proj = nn.Conv2d(self.resnet.dim, dim, patch_size, patch_size)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.proj(self.resnet(x)).flatten(2).transpose(1, 2)
