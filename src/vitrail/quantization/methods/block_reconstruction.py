"""Weights, biases and scales of activations trained by gradient descent, one block after the other.

A block of the quantised model (see :mod:`~vitrail.quantization.graph.blocks`) reads the outputs of the quantised blocks
before it, and is trained to give the outputs of the float block. Sources: reconstruction of blocks and the squared
gradient as the errors' weight as in BRECQ, arXiv:2102.05426; codes that move against the sign of their gradient as in
AutoRound, arXiv:2309.05516; quantisation of activations left out at random as in QDrop, arXiv:2203.05740; learned
scales as in LSQ, arXiv:1902.08153. A result is kept only if it lowers the error on images that it was not fitted to.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from vitrail.core.progress import track
from vitrail.quantization.context import Context
from vitrail.quantization.graph.blocks import Block, constants, split_blocks
from vitrail.quantization.graph.ops import QuantizedOp
from vitrail.quantization.graph.runner import GraphRunner, Layer, fake_quantized
from vitrail.quantization.methods.calibration import BATCH_SIZE, objective
from vitrail.quantization.methods.trainable import TrainedScale, TrainedWeight
from vitrail.quantization.plan import Rounding
from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.quantizers.uniform import UniformQuantizer
from vitrail.quantization.resume import TrainedBlock

HELD_OUT = 4
"""One image in this many is held out: the error is measured on it, and nothing is fitted to it."""

TRAINING_BATCH = 8

DROPPED = 0.5
"""Share of activations that keep their float value in training."""

REACH = 0.5
"""Distance that a code could travel, in codes, if its gradient never changed sign."""

SCALE_RATE, BIAS_RATE = 0.01, 0.01
"""Learning rates (Adam) of logarithms of scales, and of biases relative to the usual variation of a layer's output."""

TEMPER = 1.0
"""Share of the mean squared gradient that is added to each, as gradients describe small errors only."""

EVALUATIONS = 5
"""Number of times that a training is evaluated on the images held out."""


def reconstruct(
    context: Context,
    operands: Mapping[str, Quantizer],
    rounding: Mapping[str, Rounding],
    sources: Mapping[str, str],
) -> tuple[dict[str, Quantizer], dict[str, Rounding]]:
    """The quantisers and the rounding after all blocks, in the order of the graph, were trained.

    Args:
        operands: operand name -> quantiser, of weights and activations.
        rounding: weight operand -> rounding to start from, where that is not to the nearest codes.
        sources: activation operand -> the one that it shares its quantiser with.
    """
    blocks = split_blocks(context.graph_module, context.ops, context.images)
    reconstruction = _Reconstruction(context, operands, rounding, sources)
    reconstruction.weigh(blocks)
    for block in track(blocks, "Reconstructing blocks", progress=context.progress):
        name, targets = block.nodes[0].name, reconstruction.targets(block)
        result = context.resume.blocks.get(name) or reconstruction.train(block, targets)
        context.resume.add_block(name, result)
        reconstruction.take(block, result, targets)
    return reconstruction.operands, reconstruction.rounding


class _Student:
    """Computes one block with codes, biases and scales that can be trained."""

    def __init__(self, owner: _Reconstruction) -> None:
        self.owner = owner
        self.weights: dict[str, TrainedWeight] = {}
        self.scales: dict[str, TrainedScale] = {}
        self.training = False
        graph_module, ops = owner.context.graph_module, owner.context.ops
        self.runner = fake_quantized(graph_module, ops, owner.operands, activation=self.activation, layer=self.layer)

    def activation(self, name: str, x: Tensor) -> Tensor:
        """An activation after fake quantisation; in training only a part of it."""
        source = self.owner.sources.get(name, name)
        if source not in self.scales:
            self.scales[source] = TrainedScale(self.owner.operands[name])
        quantized: Tensor = self.scales[source](x)
        return self.owner.mixed(x, quantized) if self.training else quantized

    def layer(self, op: QuantizedOp, weight: Tensor, bias: Tensor | None) -> Layer:
        name = op.right.name
        quantizer, start = self.owner.operands[name], self.owner.rounding.get(name)
        if not isinstance(quantizer, UniformQuantizer) or not op.dense:
            return quantizer.fake_quantize(weight), bias
        if name not in self.weights:
            self.weights[name] = TrainedWeight(op, weight, bias, quantizer, start)
        return self.weights[name](), self.weights[name].bias

    def state(self) -> list[dict[str, Tensor]]:
        return [copy.deepcopy(module.state_dict()) for module in self._modules()]

    def load(self, state: list[dict[str, Tensor]]) -> None:
        for module, values in zip(self._modules(), state, strict=True):
            module.load_state_dict(values)

    def _modules(self) -> list[nn.Module]:
        return [*self.weights.values(), *self.scales.values()]

    def optimizer(self) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": [each.bias], "lr": BIAS_RATE * float(each.scale.mean()) * each.codes.shape[1] ** 0.5}
            for each in self.weights.values()
        ]
        scales = [each.log_scale for each in self.scales.values() if each.trained]
        return torch.optim.Adam(groups + ([{"params": scales, "lr": SCALE_RATE}] if scales else []))

    def result(self) -> TrainedBlock:
        operands: dict[str, Quantizer] = {}
        for source, each in self.scales.items():
            same = [source, *(name for name, other in self.owner.sources.items() if other == source)]
            operands |= {name: each.result() for name in same if each.trained}
        return TrainedBlock({name: each.rounding() for name, each in self.weights.items()}, operands)


class _Reconstruction:
    """State between blocks: values of the float and the quantised model at the boundary, and the results so far."""

    def __init__(
        self,
        context: Context,
        operands: Mapping[str, Quantizer],
        rounding: Mapping[str, Rounding],
        sources: Mapping[str, str],
    ) -> None:
        self.context, self.images, self.sources = context, context.images, sources
        self.operands, self.rounding = dict(operands), dict(rounding)
        self.float_runner = GraphRunner(context.graph_module)
        self.generator = torch.Generator().manual_seed(context.seed)
        placeholder = next(node for node in context.graph_module.graph.nodes if node.op == "placeholder")
        self.exact: dict[fx.Node, Tensor] = {placeholder: self.images}
        self.quantized: dict[fx.Node, Tensor] = {placeholder: self.images}
        self.fixed: dict[int, dict[fx.Node, Any]] = {}
        self.importance: dict[fx.Node, Tensor] = {}
        everything = torch.arange(len(self.images))
        self.held = everything[HELD_OUT - 1 :: HELD_OUT] if len(self.images) >= HELD_OUT else everything
        self.fitted = everything[everything % HELD_OUT != HELD_OUT - 1]

    def weigh(self, blocks: list[Block]) -> None:
        """The mean squared gradient of the model's output at each element of the blocks' outputs."""
        outputs = {node for block in blocks for node in block.outputs}
        values: dict[fx.Node, Tensor] = {}

        def note(node: fx.Node, value: Any) -> None:
            if node in outputs:
                value.retain_grad()
                values[node] = value

        runner = GraphRunner(self.context.graph_module, on_value=note)
        totals: dict[fx.Node, Tensor] = {}
        for batch in self.images.split(BATCH_SIZE):
            output = runner.run(batch.detach().clone().requires_grad_())
            objective(output, self.generator).backward()
            for node, value in values.items():
                squares = torch.zeros_like(value[0]) if value.grad is None else value.grad.square().sum(0)
                totals[node] = totals.get(node, torch.zeros_like(squares)) + squares
        self.importance = {node: total + TEMPER * total.mean() for node, total in totals.items()}

    def constants(self, batch_size: int) -> dict[fx.Node, Any]:
        if batch_size not in self.fixed:
            self.fixed[batch_size] = constants(self.context.graph_module, batch_size, self.images)
        return self.fixed[batch_size]

    def mixed(self, exact: Tensor, quantized: Tensor) -> Tensor:
        """The float value at a random share of the elements."""
        return torch.where(torch.rand(exact.shape, generator=self.generator) < DROPPED, exact, quantized)

    def targets(self, block: Block) -> list[Tensor]:
        """The outputs of the float block, for all images."""
        return self._batches(block, self.exact, self.float_runner)

    @torch.no_grad()
    def _batches(self, block: Block, values: Mapping[fx.Node, Tensor], runner: GraphRunner) -> list[Tensor]:
        parts = []
        for index in torch.arange(len(self.images)).split(BATCH_SIZE):
            inputs = {node: values[node][index] for node in block.inputs}
            parts.append(block.run(runner, self.constants(len(index)) | inputs))
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    def train(self, block: Block, targets: list[Tensor]) -> TrainedBlock:
        """The state of a block with the smallest error on the images held out; at first that is the initial one."""
        student = _Student(self)
        importance = [self.importance[node] for node in block.outputs]
        norms = _norms(targets, importance)

        def loss(index: Tensor) -> Tensor:
            inputs = {node: self.quantized[node][index] for node in block.inputs}
            if student.training:
                inputs = {node: self.mixed(self.exact[node][index], value) for node, value in inputs.items()}
            outputs = block.run(student.runner, self.constants(len(index)) | inputs)
            terms = [
                (weight * (output - target[index]).square()).mean() / norm
                for output, target, weight, norm in zip(outputs, targets, importance, norms, strict=True)
            ]
            return torch.stack(terms).sum()

        @torch.no_grad()
        def held_out_error() -> float:
            student.training = False
            return sum(float(loss(index)) * len(index) for index in self.held.split(BATCH_SIZE))

        return self._descend(student, loss, held_out_error)

    def _descend(
        self, student: _Student, loss: Callable[[Tensor], Tensor], held_out_error: Callable[[], float]
    ) -> TrainedBlock:
        least, num_steps = held_out_error(), self.context.config.reconstruction_steps
        if not student.weights:
            return TrainedBlock({}, {})
        best = student.state()
        optimizer = student.optimizer()
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, num_steps)
        order = self.fitted[:0]
        for step in range(num_steps):
            if len(order) < min(TRAINING_BATCH, len(self.fitted)):
                order = torch.cat([order, self.fitted[torch.randperm(len(self.fitted), generator=self.generator)]])
            index, order = order[:TRAINING_BATCH], order[TRAINING_BATCH:]
            student.training = True
            optimizer.zero_grad()
            loss(index).backward()
            optimizer.step()
            for weight in student.weights.values():
                weight.descend(2 * REACH / num_steps * (1 - step / num_steps))
            schedule.step()
            if (step + 1) % max(num_steps // EVALUATIONS, 1) == 0 and (now := held_out_error()) < least:
                least, best = now, student.state()
        student.load(best)
        return student.result()

    def take(self, block: Block, result: TrainedBlock, targets: list[Tensor]) -> None:
        """Keep the result, and move the boundary behind the block."""
        self.operands |= result.operands
        self.rounding |= result.rounding
        outputs = self._batches(block, self.quantized, _Student(self).runner)
        self.exact |= zip(block.outputs, targets, strict=True)
        self.quantized |= zip(block.outputs, outputs, strict=True)
        for node in set(self.exact) - block.kept:
            del self.exact[node], self.quantized[node]


def _norms(targets: list[Tensor], importance: list[Tensor]) -> list[float]:
    """The weighted mean square of each output, by which its error is divided."""
    pairs = zip(targets, importance, strict=True)
    return [float((weight * target.square()).mean()) or 1.0 for target, weight in pairs]
