"""Convolutions of mobile networks: with norm and activation, inverted residuals, squeeze-and-excitation.

Every layer with a BatchNorm beside a convolution has ``fuse()``, which folds the norm into the weights for inference. A
second call changes nothing.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import StochasticDepth


class Conv2dSame(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": the odd pixel of padding comes after, not before.

    The output has ceil(size / stride) steps; where stride is 1 and the kernel odd it is the usual symmetric padding.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.convolve(x, self.weight)

    def convolve(self, x: Float[Tensor, "b c h w"], weight: Tensor) -> Float[Tensor, "b d h2 w2"]:
        """The convolution with a given weight; a subclass may compute that weight from its own."""
        top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        if (top, left) == (bottom, right):  # one operation instead of two
            return F.conv2d(x, weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, weight, self.bias, self.stride, 0, self.dilation, self.groups)


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Padding before and after, by TensorFlow's "SAME" rule: the odd pixel comes after."""
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


class ConvNormAct(nn.Module):
    """Convolution, BatchNorm, activation. MACs: h w (output) in_dim dim kernel_size^2 / groups.

    Args:
        in_dim, dim: channels before and after.
        kernel_size, stride, groups: arguments of the convolution; padding keeps ceil(size / stride) steps.
        act: class of the activation; None omits it.
        bias: give the convolution a bias, though the norm makes it redundant (some authors' checkpoints have one).
        eps, momentum: arguments of the BatchNorm.
        tf_padding: pad as TensorFlow does (:class:`Conv2dSame`) instead of symmetrically.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        act: type[nn.Module] | None = nn.SiLU,
        bias: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
        tf_padding: bool = False,
    ) -> None:
        super().__init__()
        if tf_padding:
            self.conv: nn.Conv2d = Conv2dSame(in_dim, dim, kernel_size, stride, groups=groups, bias=bias)
        else:
            self.conv = nn.Conv2d(in_dim, dim, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias)
        self.norm: nn.Module = nn.BatchNorm2d(dim, eps=eps, momentum=momentum)
        self.act = nn.Identity() if act is None else act()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> None:
        """Fold the norm's running statistics into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            fold_norm_after(self.conv, self.norm)
            self.norm = nn.Identity()


def fuse_sequence(sequence: nn.Sequential) -> None:
    """Fold every BatchNorm of a sequence into the convolution right before it."""
    for (_, conv), (name, norm) in itertools.pairwise(list(sequence.named_children())):
        # a subclass may do more, as those with an activation of other libraries
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            fold_norm_after(conv, norm)
            setattr(sequence, name, nn.Identity())


def fold_norm_after(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fold a BatchNorm's running statistics into the convolution before it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


@torch.no_grad()
def fold_norm_before(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> None:
    """Fold a BatchNorm into the convolution *after* it, which must not pad: zeros would have been normed too."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert conv.padding == (0, 0)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    offset = conv.weight.sum((2, 3)) @ (norm.bias - norm.running_mean * scale)
    conv.weight = nn.Parameter(conv.weight * scale.view(1, -1, 1, 1))
    conv.bias = nn.Parameter(offset if conv.bias is None else conv.bias + offset)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the map's mean (Hu et al. 2018). MACs: 2 dim hidden_dim + h w dim."""

    def __init__(self, dim: int, hidden_dim: int, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden_dim, 1)
        self.act = act()
        self.fc2 = nn.Conv2d(hidden_dim, dim, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018): widen, mix neighbours, narrow without an activation.

    A residual connection is used where the shape is kept. MACs, for h w output pixels and hidden = expand_ratio in_dim:
    stride^2 h w in_dim hidden + 9 h w hidden + h w hidden dim.
    """

    def __init__(self, in_dim: int, dim: int, stride: int, expand_ratio: float, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        hidden = round(in_dim * expand_ratio)
        self.expand = ConvNormAct(in_dim, hidden, act=act)
        self.depthwise = ConvNormAct(hidden, hidden, 3, stride, groups=hidden, act=act)
        self.project = ConvNormAct(hidden, dim, act=None)
        self.has_residual = stride == 1 and in_dim == dim

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.has_residual else out


class MBConv(nn.Module):
    """MaxViT's convolution block: an inverted residual with the norm in front and squeeze-and-excitation inside.

    Stride is in the depthwise convolution; the shortcut is then an average over 2x2 pixels (at odd sizes over those
    that exist) and a 1x1 convolution only where the width changes.

    Args:
        in_dim, dim: channels before and after.
        stride: 1 or 2.
        expand_ratio: inner width over ``dim`` (not over ``in_dim``).
        se_ratio: squeezed width over ``dim``.
        act: activation after the first two convolutions; squeeze-and-excitation always has SiLU.
        eps, momentum: arguments of the BatchNorms.
        drop_path: stochastic depth.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        stride: int = 1,
        *,
        expand_ratio: float = 4.0,
        se_ratio: float = 0.25,
        act: type[nn.Module] = nn.GELU,
        eps: float = 1e-3,
        momentum: float = 0.1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = round(dim * expand_ratio)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.add_module("pool", nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
        if in_dim != dim:
            self.shortcut.add_module("proj", nn.Conv2d(in_dim, dim, 1))
        self.pre_norm: nn.Module = nn.BatchNorm2d(in_dim, eps=eps, momentum=momentum)
        self.expand = ConvNormAct(in_dim, hidden, act=act, eps=eps, momentum=momentum)
        self.depthwise = ConvNormAct(
            hidden, hidden, 3, stride, groups=hidden, act=act, eps=eps, momentum=momentum, tf_padding=True
        )
        self.se = SqueezeExcite(hidden, max(1, int(dim * se_ratio)))
        self.project = nn.Conv2d(hidden, dim, 1)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        out = self.project(self.se(self.depthwise(self.expand(self.pre_norm(x)))))
        return self.shortcut(x) + self.drop_path(out)

    def fuse(self) -> None:
        """Fold all norms into the convolutions."""
        self.expand.fuse()
        self.depthwise.fuse()
        if isinstance(self.pre_norm, nn.BatchNorm2d):
            fold_norm_before(self.pre_norm, self.expand.conv)
            self.pre_norm = nn.Identity()
