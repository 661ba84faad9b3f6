"""Several processes, here threads with a sum of their own, normalise as one process with the joint batch does."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, distributed, nn

from vitrail.training.batch_norm import CpuSyncBatchNorm


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier, parts = threading.Barrier(2, timeout=20), {}

    def all_reduce(values: Tensor) -> None:
        parts[threading.get_ident()] = values.clone()
        barrier.wait()
        total = torch.stack([parts[name] for name in sorted(parts)]).sum(0)
        barrier.wait()
        values.copy_(total)

    monkeypatch.setattr(distributed, "all_reduce", all_reduce)


def pairs(norm: nn.Module, inputs: Tensor, targets: Tensor, sizes: list[int]) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """For each process its own layer, and its part of the inputs and of the gradient of its outputs."""
    parts = zip(inputs.split(sizes), targets.split(sizes), strict=True)
    return [(copy.deepcopy(norm), part.clone().requires_grad_(), target) for part, target in parts]


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize(
    ("norm", "shape", "sizes"),
    [
        (nn.BatchNorm2d(3), (8, 3, 4, 5), [4, 4]),
        (nn.BatchNorm2d(3, momentum=None), (6, 3, 2, 2), [5, 1]),
        (nn.BatchNorm1d(3, eps=1e-3), (8, 3), [3, 5]),
        (nn.BatchNorm1d(3, affine=False), (4, 3, 7), [2, 2]),
        (nn.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 4), [1, 1]),
        (nn.BatchNorm2d(3).to(memory_format=torch.channels_last), (8, 3, 4, 5), [4, 4]),
    ],
)
def test_outputs_gradients_and_statistics_are_those_of_the_joint_batch(
    norm: nn.Module, shape: tuple[int, ...], sizes: list[int]
) -> None:
    inputs, targets = torch.randn(2, *shape, dtype=torch.float64) * 3 + 100
    norm = norm.double()
    processes = pairs(norm, inputs, targets, sizes)
    joint = inputs.clone().requires_grad_()
    for _ in range(2):
        expected = norm(joint)
    expected.backward(targets)

    def work(process: tuple[nn.Module, Tensor, Tensor]) -> Tensor:
        layer, part, target = process
        layer.__class__ = CpuSyncBatchNorm
        for _ in range(2):
            output = layer(part)
        output.backward(target)
        return output.detach()

    with ThreadPoolExecutor(2) as pool:
        outputs = list(pool.map(work, processes))
    torch.testing.assert_close(torch.cat(outputs), expected.detach())
    torch.testing.assert_close(torch.cat([part.grad for _, part, _ in processes]), joint.grad)
    for name, parameter in norm.named_parameters():
        summed = sum(layer.get_parameter(name).grad for layer, *_ in processes)
        torch.testing.assert_close(summed, parameter.grad)
    for layer, *_ in processes:
        for name, buffer in norm.named_buffers():
            torch.testing.assert_close(layer.get_buffer(name), buffer)
    norm.eval()
    layer = processes[0][0].eval()
    torch.testing.assert_close(layer(inputs), norm(inputs))  # alone: nothing is summed


@pytest.mark.usefixtures("two_processes")
def test_half_precision_is_summed_in_float32() -> None:
    inputs = (torch.randn(2, 3, 32, 32) + 30).bfloat16()
    processes = pairs(nn.BatchNorm2d(3), inputs, inputs, [1, 1])

    def work(process: tuple[nn.Module, Tensor, Tensor]) -> Tensor:
        layer, part, _ = process
        layer.__class__ = CpuSyncBatchNorm
        return layer(part).detach()

    with ThreadPoolExecutor(2) as pool:
        found = torch.cat(list(pool.map(work, processes)))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), nn.BatchNorm2d(3)(inputs.float()).detach(), atol=0.02, rtol=0.01)
