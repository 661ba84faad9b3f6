"""Keypoints of one object: how far they are off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from vitrail.tasks.findings.findings import Curve, Findings, Table, Trivial
from vitrail.tasks.metrics.keypoint_accuracy import PCK_SHARE

DISTANCES = torch.linspace(0, 0.5, 51, dtype=torch.float64)
"""Limits of the curve, as shares of the object's longer side."""


class KeypointFindings(Findings):
    """Of heat maps (b, j, rows, columns) and targets in shares of the frame.

    Distances are shares of the longer side of the object.

    Args:
        decode: heat maps to places (b, j, 2), shares of the frame, and scores.
        names: of the keypoints.
    """

    right_is = "pck"

    def __init__(self, decode: Callable[[Tensor], tuple[Tensor, Tensor]], names: Sequence[str]) -> None:
        self.decode, self.names = decode, tuple(names)
        self._found: list[Tensor] = []
        self._given: list[Tensor] = []
        self._scales: list[Tensor] = []

    def update(self, output: Tensor, targets: Mapping[str, Tensor]) -> None:
        places, _ = self.decode(output)
        frame = torch.tensor([output.shape[-1], output.shape[-2]], dtype=torch.float64)
        side = targets["side"].double().cpu() * float(frame.max())
        self._found.append(places.double().cpu())
        self._given.append(targets["keypoints"].double().cpu())
        self._scales.append(frame / side.clamp(min=1e-9).unsqueeze(1))

    @property
    def known(self) -> Tensor:
        """(images, j) bool: what is labelled."""
        return torch.cat(self._given)[..., 2] > 0

    def distances(self, places: Tensor | None = None) -> Tensor:
        """(images, j): how far ``places`` (images, j, 2), the model's by default, are off."""
        places = torch.cat(self._found) if places is None else places
        offsets = (places - torch.cat(self._given)[..., :2]) * torch.cat(self._scales).unsqueeze(1)
        return offsets.square().sum(-1).sqrt()

    def _mean_places(self) -> Tensor:
        """(images, j, 2): where each keypoint is in the other images on average."""
        given, known = torch.cat(self._given)[..., :2], self.known.unsqueeze(-1)
        total, count = (given * known).sum(0), known.sum(0)
        return (total - given * known) / (count - known.long()).clamp(min=1)

    def shares(self) -> tuple[Tensor, Tensor]:
        """Keypoints at their places, of the labelled ones."""
        right = (self.distances() < PCK_SHARE) & self.known
        return right.sum(1).double(), self.known.sum(1).double()

    def rescored(self, chosen: Tensor) -> dict[str, float]:
        """Nothing: ``pck`` is the share that has an interval already."""
        return {}

    def trivial(self) -> Trivial:
        """Each keypoint at its mean place in the other images."""
        near = (self.distances(self._mean_places()) < PCK_SHARE) & self.known
        return Trivial(
            answer="always answering the mean pose", scores={"pck": float(near.sum() / self.known.sum().clamp(min=1))}
        )

    def errors(self) -> Tensor:
        """Mean distance of the labelled keypoints."""
        return (self.distances() * self.known).sum(1) / self.known.sum(1).clamp(min=1)

    def notes(self) -> list[str]:
        rows = zip(*(one.tolist() for one in (*self.shares(), self.errors())), strict=True)
        return [
            f"{right:.0f} of {known:.0f} right, off by {100 * error:.0f} % of the object's size on average"
            for right, known, error in rows
        ]

    def curves(self) -> list[Curve]:
        """The share that is right, over the distance that is allowed."""
        labelled = self.known.sum().clamp(min=1)
        lines = {}
        for label, distances in (("the model", self.distances()), ("mean pose", self.distances(self._mean_places()))):
            shares = [float(((distances < limit) & self.known).sum() / labelled) for limit in DISTANCES]
            lines[label] = [(round(x, 4), round(y, 4)) for x, y in zip(DISTANCES.tolist(), shares, strict=True)]
        return [
            Curve(
                name="distances",
                title="How many keypoints are how near",
                x="distance, of the object's longer side",
                y="keypoints that are nearer",
                lines=lines,
            )
        ]

    def tables(self) -> list[Table]:
        """One row a keypoint, the worst first."""
        distances, known = self.distances(), self.known
        rows = []
        for index, name in enumerate(self.names):
            own = distances[known[:, index], index]
            if len(own):
                right = float((own < PCK_SHARE).double().mean())
                rows.append([name, len(own), right, float(own.median()), float(own.max())])
        columns = {"keypoint": "text", "labelled": "count", "right": "percent", "median off by": "percent"}
        return [
            Table(
                title="Keypoint by keypoint, the worst first; distances are shares of the object's longer side",
                columns=columns | {"most off by": "percent"},
                rows=sorted(rows, key=lambda row: row[2]),
            )
        ]
