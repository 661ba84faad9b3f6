"""BatchNorm over the images of all processes, so that several processes train as one with their joint batch does."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CpuSyncBatchNorm(_BatchNorm):
    """PyTorch's SyncBatchNorm for CPUs, on which PyTorch's own refuses to work."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        axes = [0, *range(2, values.dim())]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        count = _summed(torch.tensor(float(values.numel() // values.shape[1]), dtype=values.dtype))
        mean = _summed(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = _summed(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of places, as PyTorch's SyncBatchNorm."""

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)


class BatchNormSync(LayerSync):
    """Lightning's plugin that synchronises every BatchNorm while several devices train."""

    def __init__(self) -> None:
        self._kinds: dict[_BatchNorm, type[_BatchNorm]] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the class of the layers; layers, parameters and names stay, so that optimisers keep them."""
        assert isinstance(model, LightningModule)
        on_cpu = model.trainer.strategy.root_device.type == "cpu"
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                self._kinds[module] = type(module)
                module.process_group = None  # type: ignore[assignment]  # all processes, in PyTorch's words
                module.__class__ = CpuSyncBatchNorm if on_cpu else nn.SyncBatchNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Give the layers their own classes back."""
        for module, kind in self._kinds.items():
            module.__class__ = kind
            del module.process_group
        self._kinds.clear()
        return model


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient.contiguous())


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total
