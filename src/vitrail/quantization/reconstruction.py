"""Weights, biases and steps of activations tuned by gradient descent, a few layers at a time.

A segment of the quantised model (a transformer's block, see :mod:`~vitrail.quantization.segments`) is trained to give,
from what the quantised layers before it give, what the float segment gives. Sources: reconstruction of blocks and the
squared gradient as the errors' weight as in BRECQ, arXiv:2102.05426; codes that move against the sign of their gradient
as in AutoRound, arXiv:2309.05516; codes of activations left out at random as in QDrop, arXiv:2203.05740; learned steps
as in LSQ, arXiv:1902.08153. What is learned is kept only if it helps on images that it was not fitted to.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from rich.progress import track
from torch import Tensor, fx, nn

from vitrail.quantization.calibration import BATCH_SIZE, objective
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.nonuniform import Quantizer, quantizer_from_dict
from vitrail.quantization.plan import Rounded
from vitrail.quantization.quantizers import UniformQuantizer
from vitrail.quantization.segments import Segment, constants, cut
from vitrail.quantization.sites import Site
from vitrail.quantization.trainable import TrainedStep, TrainedWeight
from vitrail.quantization.walk import layer_bias

HELD_OUT = 4
"""One image in this many judges and is not fitted to."""

TRAINING_BATCH = 8

DROPPED = 0.5
"""Share of activations that keep their float value in training."""

REACH = 0.5
"""How far a code could travel, in codes, if its gradient never changed sign."""

STEP_RATE, BIAS_RATE = 0.01, 0.01
"""Learning rates (Adam) of logarithms of steps, and of biases in what a layer's output usually varies by."""

TEMPER = 1.0
"""Share of the mean squared gradient that is added to each, as gradients speak of small errors only."""

JUDGEMENTS = 5
"""How often a training is judged on the images held out."""


@dataclass(frozen=True)
class Tuned:
    """What the training of one segment decided.

    Attributes:
        rounded: weight operand -> codes and bias.
        operands: activation operand -> its quantiser, with the trained step.
    """

    rounded: Mapping[str, Rounded]
    operands: Mapping[str, Quantizer]

    def to_dict(self) -> dict[str, Any]:
        return {
            "rounded": {name: rounded.to_dict() for name, rounded in self.rounded.items()},
            "operands": {name: quantizer.to_dict() for name, quantizer in self.operands.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            {name: Rounded.from_dict(row) for name, row in values["rounded"].items()},
            {name: quantizer_from_dict(row) for name, row in values["operands"].items()},
        )


def reconstruct(
    graph_module: fx.GraphModule,
    sites: list[Site],
    operands: Mapping[str, Quantizer],
    rounded: Mapping[str, Rounded],
    images: Tensor,
    *,
    num_steps: int,
    sources: Mapping[str, str],
    seed: int = 0,
    known: Mapping[str, Tuned] | None = None,
    on_tuned: Callable[[str, Tuned], None] | None = None,
    progress: bool = False,
) -> tuple[dict[str, Quantizer], dict[str, Rounded]]:
    """Operands and codes after all segments, in the order of the graph, were trained.

    Args:
        sites: the products that are quantised.
        operands: operand name -> quantiser, of weights and activations.
        rounded: weight operand -> codes that are not the nearest ones, to start from.
        images: normalised (n, c, h, w); a quarter of them judges only.
        num_steps: of gradient descent for each segment, on ``TRAINING_BATCH`` images each.
        sources: activation operand -> the one that it shares its quantiser with.
        seed: of the order of images and of the activations that are left out.
        known: first node of a segment -> what an earlier, interrupted call decided.
        on_tuned: is told each decision as it is made.
    """
    segments = cut(graph_module, sites, images)
    reconstruction = _Reconstruction(graph_module, images, operands, rounded, sources, num_steps, seed)
    reconstruction.weigh(segments)
    for segment in track(segments, "reconstructing blocks", disable=not progress):
        name = segment.nodes[0].name
        targets = reconstruction.targets(segment)
        tuned = (known or {}).get(name) or reconstruction.train(segment, targets)
        if on_tuned is not None:
            on_tuned(name, tuned)
        reconstruction.take(segment, tuned, targets)
    return reconstruction.operands, reconstruction.rounded


class _Student:
    """Computes the quantised products of one segment, with codes, biases and steps that can be trained."""

    def __init__(self, owner: _Reconstruction) -> None:
        self.owner = owner
        self.weights: dict[str, TrainedWeight] = {}
        self.steps: dict[str, TrainedStep] = {}
        self.training = False

    def product(self, site: Site, left: Tensor, right: Any) -> Tensor:
        node = site.node
        left = self.step(site.left.name, left)
        if not site.weighted:
            return node.target(left, self.step(site.right.name, right))  # type: ignore[operator]
        weight, bias = self.weight(site)
        if site.kind == "matmul":
            result = left @ weight if bias is None else left @ weight + bias
        else:
            options = {k: v for k, v in node.kwargs.items() if k not in ("weight", "bias")}
            result = node.target(left, weight, bias, *node.args[3:], **options)  # type: ignore[operator]
        output = site.output
        return result if output is None or output.name not in self.owner.operands else self.step(output.name, result)

    def step(self, name: str, x: Tensor) -> Tensor:
        """An activation through its codes; in training only a part of it."""
        source = self.owner.sources.get(name, name)
        if source not in self.steps:
            self.steps[source] = TrainedStep(self.owner.operands[name])
        coded: Tensor = self.steps[source](x)
        return self.owner.mixed(x, coded) if self.training else coded

    def weight(self, site: Site) -> tuple[Tensor, Tensor | None]:
        name, graph_module = site.right.name, self.owner.graph_module
        weight, bias = tensor_of(graph_module, site.right.node), layer_bias(graph_module, site)
        assert weight is not None
        quantizer, start = self.owner.operands[name], self.owner.rounded.get(name)
        if not isinstance(quantizer, UniformQuantizer) or not site.dense:
            return quantizer.fake_quantize(weight), bias
        if name not in self.weights:
            self.weights[name] = TrainedWeight(site, weight, bias, quantizer, start)
        return self.weights[name](), self.weights[name].bias

    def state(self) -> list[dict[str, Tensor]]:
        return [copy.deepcopy(module.state_dict()) for module in self._modules()]

    def load(self, state: list[dict[str, Tensor]]) -> None:
        for module, values in zip(self._modules(), state, strict=True):
            module.load_state_dict(values)

    def _modules(self) -> list[nn.Module]:
        return [*self.weights.values(), *self.steps.values()]

    def optimizer(self) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": [each.bias], "lr": BIAS_RATE * float(each.scale.mean()) * each.codes.shape[1] ** 0.5}
            for each in self.weights.values()
        ]
        steps = [each.logarithm for each in self.steps.values() if each.trained]
        return torch.optim.Adam(groups + ([{"params": steps, "lr": STEP_RATE}] if steps else []))

    def tuned(self) -> Tuned:
        operands: dict[str, Quantizer] = {}
        for source, each in self.steps.items():
            same = [source, *(name for name, other in self.owner.sources.items() if other == source)]
            operands |= {name: each.tuned() for name in same if each.trained}
        return Tuned({name: each.rounded() for name, each in self.weights.items()}, operands)


class _Reconstruction:
    """The state between segments: values of the float and the quantised model at the cut, and what was decided."""

    def __init__(
        self,
        graph_module: fx.GraphModule,
        images: Tensor,
        operands: Mapping[str, Quantizer],
        rounded: Mapping[str, Rounded],
        sources: Mapping[str, str],
        num_steps: int,
        seed: int,
    ) -> None:
        self.graph_module, self.images, self.sources, self.num_steps = graph_module, images, sources, num_steps
        self.operands, self.rounded = dict(operands), dict(rounded)
        self.generator = torch.Generator().manual_seed(seed)
        placeholder = next(node for node in graph_module.graph.nodes if node.op == "placeholder")
        self.exact: dict[fx.Node, Tensor] = {placeholder: images}
        self.quantized: dict[fx.Node, Tensor] = {placeholder: images}
        self.fixed: dict[int, dict[fx.Node, Any]] = {}
        self.importance: dict[fx.Node, Tensor] = {}
        everything = torch.arange(len(images))
        self.held = everything[HELD_OUT - 1 :: HELD_OUT] if len(images) >= HELD_OUT else everything
        self.fitted = everything[everything % HELD_OUT != HELD_OUT - 1]

    def weigh(self, segments: list[Segment]) -> None:
        """How much the model's output feels an error of each element of a segment's outputs, on average."""
        wanted = {node for segment in segments for node in segment.outputs}
        seen: dict[fx.Node, Tensor] = {}

        class Watch(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if n in wanted:
                    value.retain_grad()
                    seen[n] = value
                return value

        totals: dict[fx.Node, Tensor] = {}
        for batch in self.images.split(BATCH_SIZE):
            output = Watch(self.graph_module).run(batch.detach().clone().requires_grad_())
            objective(output, self.generator).backward()
            for node, value in seen.items():
                squares = torch.zeros_like(value[0]) if value.grad is None else value.grad.square().sum(0)
                totals[node] = totals.get(node, torch.zeros_like(squares)) + squares
        self.importance = {node: total + TEMPER * total.mean() for node, total in totals.items()}

    def constants(self, batch_size: int) -> dict[fx.Node, Any]:
        if batch_size not in self.fixed:
            self.fixed[batch_size] = constants(self.graph_module, batch_size, self.images)
        return self.fixed[batch_size]

    def mixed(self, exact: Tensor, coded: Tensor) -> Tensor:
        """The float value in a random share of places."""
        return torch.where(torch.rand(exact.shape, generator=self.generator) < DROPPED, exact, coded)

    @torch.no_grad()
    def targets(self, segment: Segment) -> list[Tensor]:
        """What the float segment gives, for all images."""
        return self._batches(segment, self.exact, None)

    @torch.no_grad()
    def _batches(self, segment: Segment, values: Mapping[fx.Node, Tensor], student: _Student | None) -> list[Tensor]:
        product = None if student is None else student.product
        parts = []
        for index in torch.arange(len(self.images)).split(BATCH_SIZE):
            given = {node: values[node][index] for node in segment.inputs}
            parts.append(segment.run(self.constants(len(index)) | given, product))
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    def train(self, segment: Segment, targets: list[Tensor]) -> Tuned:
        """The best state of a segment that the images held out have seen; at first that is the one it came in."""
        student = _Student(self)
        importance = [self.importance[node] for node in segment.outputs]

        def loss(index: Tensor, norms: list[float]) -> Tensor:
            given = {node: self.quantized[node][index] for node in segment.inputs}
            if student.training:
                given = {node: self.mixed(self.exact[node][index], value) for node, value in given.items()}
            outputs = segment.run(self.constants(len(index)) | given, student.product)
            terms = [
                (weight * (output - target[index]).square()).mean() / norm
                for output, target, weight, norm in zip(outputs, targets, importance, norms, strict=True)
            ]
            return torch.stack(terms).sum()

        @torch.no_grad()
        def judged(norms: list[float]) -> float:
            student.training = False
            return sum(float(loss(index, norms)) * len(index) for index in self.held.split(BATCH_SIZE))

        return self._descend(student, loss, judged, self._norms(targets, importance))

    def _norms(self, targets: list[Tensor], importance: list[Tensor]) -> list[float]:
        """Of several outputs, each counts by its share of its own size."""
        pairs = zip(targets, importance, strict=True)
        return [float((weight * target.square()).mean()) or 1.0 for target, weight in pairs]

    def _descend(
        self,
        student: _Student,
        loss: Callable[[Tensor, list[float]], Tensor],
        judged: Callable[[list[float]], float],
        norms: list[float],
    ) -> Tuned:
        least = judged(norms)
        if not student.weights:
            return Tuned({}, {})
        best = student.state()
        optimizer = student.optimizer()
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.num_steps)
        order = self.fitted[:0]
        for step in range(self.num_steps):
            if len(order) < min(TRAINING_BATCH, len(self.fitted)):
                order = torch.cat([order, self.fitted[torch.randperm(len(self.fitted), generator=self.generator)]])
            index, order = order[:TRAINING_BATCH], order[TRAINING_BATCH:]
            student.training = True
            optimizer.zero_grad()
            loss(index, norms).backward()
            optimizer.step()
            for weight in student.weights.values():
                weight.descend(2 * REACH / self.num_steps * (1 - step / self.num_steps))
            schedule.step()
            if (step + 1) % max(self.num_steps // JUDGEMENTS, 1) == 0 and (now := judged(norms)) < least:
                least, best = now, student.state()
        student.load(best)
        return student.tuned()

    def take(self, segment: Segment, tuned: Tuned, targets: list[Tensor]) -> None:
        """Decide, and go on behind the segment."""
        self.operands |= tuned.operands
        self.rounded |= tuned.rounded
        outputs = self._batches(segment, self.quantized, _Student(self))
        self.exact |= zip(segment.outputs, targets, strict=True)
        self.quantized |= zip(segment.outputs, outputs, strict=True)
        for node in set(self.exact) - segment.kept:
            del self.exact[node], self.quantized[node]
