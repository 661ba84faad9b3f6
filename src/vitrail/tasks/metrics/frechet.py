"""Distances of made pictures from real ones in the features of a network.

Sources: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017 (Fréchet distance); Binkowski et
al., "Demystifying MMD GANs", ICLR 2018 (kernel distance); Kynkäänniemi et al., "Improved Precision and Recall Metric",
NeurIPS 2019. Only with Inception's features are the first two FID and KID; with others they compare only what was
measured with the same features on as many pictures.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.utilities import dim_zero_cat

from vitrail.core.errors import ConfigError
from vitrail.core.extras import import_extra
from vitrail.core.seeds import seeded
from vitrail.core.types import Preprocessing
from vitrail.models import Backbone, create_model
from vitrail.models.maxvit_gan import as_pixels
from vitrail.tasks.spec import OpenBackbone

NEIGHBOURS = 3
"""Number of nearest neighbours that bound a picture's surroundings."""

SUBSETS, SUBSET_SIZE = 20, 250
"""Of the kernel distance."""

RANDOM = ("edgevit_nano_stride2", 48)


class FeatureExtractor(nn.Module):
    """A backbone's pooled features of uint8 pictures (b, 3, h, w) of any size."""

    def __init__(self, backbone: Backbone, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.preprocessing = preprocessing

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> Tensor:
        """(b, num_features)"""
        images = self.preprocessing.normalize(pictures)
        size = self.preprocessing.image_size
        if images.shape[-2:] != size:
            images = nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
        return self.backbone.forward_head(self.backbone.forward_features(images), pre_logits=True)


def find_extractor(name: str, open_backbone: OpenBackbone | None = None) -> nn.Module:
    """The model whose features pictures are compared by.

    Args:
        name: "random", "inception", or the folder of a run.
        open_backbone: opens the backbone of a run folder; without it there are no run folders.

    Raises:
        RunError: the folder is no run.
        ConfigError: the run has no backbone that takes images.
        MissingDependencyError: Inception without torch-fidelity.
    """
    if name == "random":
        with seeded(0):
            model = create_model(RANDOM[0], num_classes=0, image_size=RANDOM[1])
        return FeatureExtractor(model, Preprocessing(image_size=(RANDOM[1], RANDOM[1])))
    if name == "inception":
        import_extra("torch_fidelity", "torch-fidelity", "generation")
        return FrechetInceptionDistance(feature=2048).inception
    if open_backbone is None:
        raise ConfigError("is neither random nor inception, and run folders cannot be opened here", features=name)
    return FeatureExtractor(*open_backbone(name))


class PictureMetric(Metric):
    """``frechet``, ``kernel``, ``precision`` (made pictures among real ones) and ``recall`` (real among made).

    Args:
        extractor: uint8 pictures (b, 3, h, w) to features (b, d).
    """

    full_state_update = False
    real: list[Tensor]
    made: list[Tensor]

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = (extractor,)  # in a tuple, so that its weights are none of the checkpoint's
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("made", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, targets: Mapping[str, Tensor]) -> None:
        """Pictures of about -1 to 1 (b, 3, h, w), and real ones under ``image``, uint8."""
        extract = self.extractor[0].to(output.device)
        self.real.append(extract(targets["image"].to(output.device)).float().cpu())
        self.made.append(extract(as_pixels(output)).float().cpu())

    def compute(self) -> dict[str, Tensor]:
        """Each a scalar.

        Raises:
            ConfigError: too few pictures to say anything.
        """
        real, made = dim_zero_cat(self.real), dim_zero_cat(self.made)
        if len(real) <= NEIGHBOURS + 1:
            raise ConfigError(f"{len(real)} validation images are too few to compare pictures with; give at least 5")
        return compare_features(real, made)


def compare_features(real: Tensor, made: Tensor) -> dict[str, Tensor]:
    """Features (n, d) and (m, d) to the four figures."""
    given = _Given(real.shape[1])
    frechet = FrechetInceptionDistance(feature=given)
    size = min(len(real), len(made), SUBSET_SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that features are kept, which is known
        kernel = KernelInceptionDistance(feature=given, subsets=SUBSETS, subset_size=size)
    for metric in (frechet, kernel):
        metric.update(real, real=True)
        metric.update(made, real=False)
    with seeded(0):  # which subsets
        mean, _ = kernel.compute()
    values = {"frechet": frechet.compute(), "kernel": mean}
    return values | {"precision": share_inside(made, real), "recall": share_inside(real, made)}


class _Given(nn.Module):
    """Features that are there already, in the place of a network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def share_inside(points: Tensor, reference: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Share of ``points`` (n, d) that are as near to one of ``reference`` (m, d) as its k-th nearest neighbour is."""
    reach = torch.cdist(reference, reference).kthvalue(neighbours + 1, dim=1).values  # the nearest is itself
    return (torch.cdist(points, reference) <= reach).any(1).float().mean()
