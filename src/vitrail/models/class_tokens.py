"""Tokens before the patches that an image is classified by: the class token, and DeiT's distillation token.

Paper: Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021,
arXiv:2012.12877, section 4. The distillation token takes part in every attention as the class token does. Its
classifier learns from the answers of a teacher, that of the class token from the labels. The answer is the mean of both
classifiers' logits, as in the authors' code and timm; the paper's text adds their softmaxes.

Shapes: b images, n patches, m tokens (class and distillation token first), d width, k classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.models.base import TokenBackbone, make_classifier


class ClassTokenBackbone(TokenBackbone):
    """A backbone that may classify by tokens of its own.

    Attributes:
        class_token: learned token before the patches, if there is one.
        distillation_token: learned token behind the class token, if there is one.
        head_dist: classifier of the distillation token, if there is one.
    """

    class_token: nn.Parameter | None
    distillation_token: nn.Parameter | None
    head_dist: nn.Module | None
    head_prefixes: ClassVar[tuple[str, ...]] = ("head.", "head_dist.")

    def prepend_tokens(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        """The tokens that there are, then the patches."""
        tokens = [token for token in (self.class_token, self.distillation_token) if token is not None]
        if not tokens:
            return patches
        return torch.cat([*(token.expand(patches.shape[0], -1, -1) for token in tokens), patches], 1)

    def pool_tokens(self, x: Float[Tensor, "b m d"]) -> Float[Tensor, "b d"]:
        """The class token of final features, or its mean with the distillation token."""
        return x[:, 0] if self.distillation_token is None else (x[:, 0] + x[:, 1]) / 2

    def head_logits(self, features: Float[Tensor, "b m d"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Final features to the logits of the class token and to those of the distillation token.

        Args:
            features: result of :meth:`forward_features`.

        Raises:
            ConfigError: there is no distillation token.
        """
        if self.head_dist is None:
            raise ConfigError("the model has one classifier; build it with distillation_token=True")
        return self.head(self.head_drop(features[:, 0])), self.head_dist(self.head_drop(features[:, 1]))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits or self.head_dist is None:
            return super().forward_head(x, pre_logits)
        by_class, by_distillation = self.head_logits(x)
        return (by_class + by_distillation) / 2

    def classifiers(self) -> tuple[nn.Module, ...]:
        return super().classifiers() if self.head_dist is None else (self.head, self.head_dist)

    def reset_classifier(self, num_classes: int) -> None:
        super().reset_classifier(num_classes)
        if self.head_dist is not None:
            weight = next(self.parameters())
            self.head_dist = make_classifier(self.num_features, num_classes).to(weight.device, weight.dtype)


def make_token(dim: int) -> nn.Parameter:
    """A learned token (1, 1, dim), initialised as DeiT's authors do."""
    token = nn.Parameter(torch.empty(1, 1, dim))
    nn.init.trunc_normal_(token, std=0.02)
    return token
