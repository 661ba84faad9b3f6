"""Scores of images with any number of classes, and the least probability from which each class is named."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

LEAST = 1e-6
"""Probabilities nearer than this to 0 or 1 are no bounds."""

SHARED = 10
"""Images that the bound of all classes together counts as: what a few images say of a class is mostly chance. (On 150
pictures of up to three of 17 flowers, with 2 to 17 validation images a class, F1 rose from 60.0 % to 64.8 %.)"""


class RankedLabels:
    """The known entries of each class, by their probability: what average precision and bounds are made of.

    Entries of equal probability are taken all or none, as scikit-learn does.

    Args:
        probabilities: (n, num_classes).
        targets: (n, num_classes), 1 or 0, or below 0 where they are unknown.
    """

    def __init__(self, probabilities: Tensor, targets: Tensor) -> None:
        self.values, self.order = probabilities.double().sort(dim=0, descending=True, stable=True)
        ranked = targets.gather(0, self.order)
        self.has, self.known = (ranked == 1).double(), (ranked >= 0).double()
        count, last = len(self.values), torch.ones_like(self.values, dtype=torch.bool)
        last[:-1] = self.values[1:] < self.values[:-1]
        places = torch.where(last, torch.arange(count).unsqueeze(1), count)
        self.ends = places.flip(0).cummin(0).values.flip(0)  # the last of those that are equal

    def precisions(self, times: Tensor | None = None) -> Tensor:
        """Average precision of each class (num_classes,); no number for classes that no image has.

        Args:
            times: how often each image counts (n,). Default: once.
        """
        weight = self.known if times is None else self.known * times[self.order]
        hits, counts = (self.has * weight).cumsum(0), weight.cumsum(0)
        precision = (hits / counts.clamp(min=1e-12)).gather(0, self.ends)
        return (precision * self.has * weight).sum(0) / hits[-1]

    def bounds(self) -> Tensor:
        """The probability with the best F1 of each class (num_classes,), halfway between the last image that it lets in
        and the next one; no number for classes that no image has."""
        hits, counts = (self.has * self.known).cumsum(0), self.known.cumsum(0)
        after = torch.cat([self.values[1:], torch.zeros_like(self.values[:1])])
        f1 = torch.where(self.values > after, 2 * hits / (counts + hits[-1]), -1.0)
        best = f1.argmax(0, keepdim=True)
        bound = ((self.values.gather(0, best) + after.gather(0, best)) / 2)[0].clamp(LEAST, 1 - LEAST)
        return torch.where(hits[-1] > 0, bound, torch.nan)


def label_counts(named: Tensor, targets: Tensor, times: Tensor | None = None) -> Tensor:
    """Found, invented and missed entries of each class (3, num_classes).

    Args:
        named: whether an answer names the class (n, num_classes).
        targets: 1 or 0, or below 0 where they are unknown (n, num_classes).
        times: how often each image counts (n,). Default: once.
    """
    has, lacks = targets == 1, targets == 0
    weight = torch.ones(len(named), dtype=torch.float64) if times is None else times
    return torch.stack([weight @ part.double() for part in (named & has, named & lacks, ~named & has)])


def label_scores(counts: Tensor) -> dict[str, Tensor]:
    """``micro_f1`` and ``macro_f1`` of :func:`label_counts`: of all entries together, and the mean over the classes
    that an image has; 0 where there is nothing to find.
    """
    found, wrong, missed = counts
    f1 = 2 * found / (2 * found + wrong + missed).clamp(min=1)
    occurs = found + missed > 0
    total = counts.sum(1)
    return {
        "micro_f1": 2 * total[0] / (2 * total[0] + total[1] + total[2]).clamp(min=1),
        "macro_f1": f1[occurs].sum() / occurs.sum().clamp(min=1),
    }


def exact(named: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Whether all that is known of an image is right (n,), and whether anything is known (n,)."""
    known = targets >= 0
    return ((named == (targets == 1)) | ~known).all(1), known.any(1)


class LabelMetric(Metric):
    """``map``, the mean over the classes that occur of average precision; ``micro_f1``, ``macro_f1`` and
    ``exact_match`` of what answers name; ``ap_per_class``, ``precision_per_class``, ``recall_per_class`` and
    ``f1_per_class``, which are no numbers for classes that no image has.

    Args:
        bounds: least probability of each class (num_classes,).
    """

    full_state_update = False
    outputs: list[Tensor]
    given: list[Tensor]

    def __init__(self, bounds: Tensor) -> None:
        super().__init__()
        self.bounds = bounds
        self.add_state("outputs", [], dist_reduce_fx="cat")
        self.add_state("given", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, targets: Tensor) -> None:
        """Logits (b, num_classes) and the targets of the batch."""
        self.outputs.append(output.detach().float())
        self.given.append(targets.float())

    def compute(self) -> dict[str, Tensor]:
        """Scalars, and a vector for each name that ends in ``_per_class``."""
        probabilities, targets = dim_zero_cat(self.outputs).cpu().sigmoid(), dim_zero_cat(self.given).cpu()
        named = probabilities >= self.bounds
        precisions = RankedLabels(probabilities, targets).precisions()
        occurs = ~precisions.isnan()
        counts = label_counts(named, targets)
        right, judged = exact(named, targets)
        found, wrong, missed = counts
        per_class = {
            "ap": precisions,
            "precision": found / (found + wrong).clamp(min=1),
            "recall": found / (found + missed).clamp(min=1),
            "f1": 2 * found / (2 * found + wrong + missed).clamp(min=1),
        }
        return (
            {"map": precisions[occurs].sum() / occurs.sum().clamp(min=1)}
            | label_scores(counts)
            | {"exact_match": (right & judged).sum() / judged.sum().clamp(min=1)}
            | {f"{name}_per_class": torch.where(occurs, value, torch.nan) for name, value in per_class.items()}
        )


class LabelBoundSearch:
    """The probability with the best F1 of each class, drawn towards that of all classes together where few images have
    the class: n images count n, and all classes together :data:`SHARED`, on the scale of logits."""

    def __init__(self) -> None:
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, output: Tensor, targets: Tensor) -> None:
        """Logits (b, num_classes) and the targets of the batch."""
        self._outputs.append(output.detach().float().cpu())
        self._targets.append(targets.cpu())

    def best(self) -> tuple[float, float]:
        """The best one of all classes together (one half where there is none), and the F1 of all entries with the ones
        of :meth:`by_class`."""
        probabilities, targets = torch.cat(self._outputs).sigmoid(), torch.cat(self._targets)
        named = probabilities >= torch.tensor(self.by_class())
        return self._joint(probabilities, targets), float(label_scores(label_counts(named, targets))["micro_f1"])

    def by_class(self) -> tuple[float, ...]:
        """The one of each class."""
        probabilities, targets = torch.cat(self._outputs).sigmoid(), torch.cat(self._targets)
        joint = torch.tensor(self._joint(probabilities, targets), dtype=torch.float64)
        own = RankedLabels(probabilities, targets).bounds()
        own = torch.where(own.isnan(), joint, own)
        count = (targets == 1).sum(0).double()
        drawn = (count * own.logit() + SHARED * joint.logit()) / (count + SHARED)
        return tuple(float(f"{bound:.6g}") for bound in drawn.sigmoid().clamp(LEAST, 1 - LEAST).tolist())

    def _joint(self, probabilities: Tensor, targets: Tensor) -> float:
        (bound,) = RankedLabels(probabilities.reshape(-1, 1), targets.reshape(-1, 1)).bounds().tolist()
        return 0.5 if bound != bound else float(f"{bound:.6g}")
