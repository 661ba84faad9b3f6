"""Public weights on the Hugging Face hub; every family file lists its own.

Their hub ids are those of timm 1.0.31's configurations, whose repositories hold a ``model.safetensors`` in timm's
layout. An accuracy is given where a paper or the authors' model zoo states it for these very weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from vitrail.core.types import ImageSize, Preprocessing

PREFIX = "pretrained"
"""Start of ``weights=`` where it asks for public weights: ``pretrained`` or ``pretrained:TAG``."""


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """One file of weights on the hub.

    Attributes:
        hub_id: repository, ``owner/name``.
        file: path in the repository.
        revision: branch, tag or commit.
        sha256: hash of the file; None where the download is compared with the hub's own record.
        tag: training recipe, e.g. ``augreg_in21k_ft_in1k``.
        image_size: (height, width) of the training images.
        preprocessing: preprocessing that the weights expect.
        num_classes: outputs of the classifier; 0 where there is none.
        licence: licence as the hub states it.
        top1: published accuracy on ImageNet-1K, in percent.
        source: publication of that accuracy.
    """

    hub_id: str
    file: str = "model.safetensors"
    revision: str = "main"
    sha256: str | None = None
    tag: str
    image_size: ImageSize
    preprocessing: Preprocessing
    num_classes: int = 1000
    licence: str = "apache-2.0"
    top1: float | None = None
    source: str = ""


def parse_pretrained(weights: str) -> str | None:
    """The tag of ``pretrained:TAG``, "" of ``pretrained``; None where ``weights`` names a file or an address."""
    kind, _, tag = weights.partition(":")
    return tag if kind == PREFIX and not tag.startswith("//") else None
