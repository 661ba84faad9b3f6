"""Common corruptions at five severities, made of torchvision's operations (docs/decisions/0012-corruptions.md).

The kinds follow Hendrycks & Dietterich 2019 (arXiv:1903.12261) where torchvision has them; the strengths are ours, so
that numbers cannot be compared with published ImageNet-C errors. Lengths scale with the picture: what is a blur of one
pixel at 224 pixels is one of a quarter at 56.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from vitrail.core.errors import ConfigError

REFERENCE_SIDE = 224
"""Pixels of the side that lengths are given for."""


def _noise(image: Tensor, sigma: float) -> Tensor:
    return V.gaussian_noise(image.float() / 255, 0.0, sigma).mul(255).round().to(torch.uint8)


def _shot(image: Tensor, photons: float) -> Tensor:
    return (torch.poisson(image.float() / 255 * photons) / photons).clamp(0, 1).mul(255).round().to(torch.uint8)


def _blur(image: Tensor, sigma: float) -> Tensor:
    sigma = max(sigma * min(image.shape[-2:]) / REFERENCE_SIDE, 0.05)
    return V.gaussian_blur(image, [2 * round(3 * sigma) + 1] * 2, [sigma, sigma])


def _pixelate(image: Tensor, factor: float) -> Tensor:
    height, width = image.shape[-2:]
    small = V.resize(image, [max(1, round(height * factor)), max(1, round(width * factor))], antialias=True)
    return V.resize(small, [height, width], interpolation=V.InterpolationMode.NEAREST)


def _elastic(image: Tensor, alpha: float) -> Tensor:
    scale = min(image.shape[-2:]) / REFERENCE_SIDE
    return v2.ElasticTransform(alpha=alpha * scale, sigma=max(8 * scale, 0.5))(image)


def _jpeg(image: Tensor, quality: float) -> Tensor:
    buffer = io.BytesIO()  # torchvision's own encoder is deprecated
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=int(quality))
    return V.pil_to_tensor(Image.open(buffer).convert("RGB"))


CORRUPTIONS: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, float, float, float, float]]] = {
    "gaussian noise": (_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "shot noise": (_shot, (60, 25, 12, 5, 3)),
    "blur": (_blur, (2.0, 4.0, 6.0, 8.0, 10.0)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
    "brighter": (V.adjust_brightness, (1.2, 1.4, 1.7, 2.0, 2.5)),
    "darker": (V.adjust_brightness, (0.8, 0.65, 0.5, 0.35, 0.2)),
    "low contrast": (V.adjust_contrast, (0.7, 0.5, 0.35, 0.2, 0.1)),
    "grey": (V.adjust_saturation, (0.8, 0.6, 0.4, 0.2, 0.0)),
    "elastic": (_elastic, (60.0, 90.0, 120.0, 160.0, 220.0)),
}
"""Name -> operation on one uint8 picture (3, h, w), and its strength at severities 1 to 5."""


def corrupt(image: Tensor, name: str, severity: int, *, seed: int = 0, key: str = "") -> Tensor:
    """A corrupted uint8 picture (3, h, w); severity 0 gives it back.

    Args:
        image: the picture.
        name: a corruption in :data:`CORRUPTIONS`.
        severity: 0 to 5.
        seed, key: noise follows from them, the name and the severity alone; the key is the picture's own name.

    Raises:
        ConfigError: no such corruption or severity.
    """
    if name not in CORRUPTIONS or not 0 <= severity <= 5:
        raise ConfigError(
            f"corruption '{name}' of severity {severity} does not exist; there are {', '.join(CORRUPTIONS)}, 0 to 5"
        )
    if severity == 0:
        return image
    operation, strengths = CORRUPTIONS[name]
    with _seeded(f"{seed}/{key}/{name}/{severity}"):
        return operation(image, strengths[severity - 1])


@contextmanager
def _seeded(text: str) -> Iterator[None]:
    """torchvision draws from the global generator; lend it a seed and give it back untouched."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")
    )
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
