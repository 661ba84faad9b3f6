from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import fit_image


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(8, 64), st.integers(8, 64)),
    st.floats(0.5, 1.0),
)
def test_any_picture_fits_any_size(picture: tuple[int, int], image_size: tuple[int, int], crop_fraction: float) -> None:
    fitted = fit_image(noise(*picture), Preprocessing(image_size=image_size, crop_fraction=crop_fraction))
    assert fitted.shape == (3, *image_size)
    assert fitted.dtype == torch.uint8


def test_a_picture_of_the_right_size_is_returned_as_it_is() -> None:
    image = noise(48, 48)
    assert torch.equal(fit_image(image, Preprocessing(image_size=(48, 48), crop_fraction=0.875)), image)


def test_a_picture_between_crop_and_resize_is_only_cropped() -> None:
    image = noise(50, 52)
    fitted = fit_image(image, Preprocessing(image_size=(48, 48), crop_fraction=0.875))
    assert torch.equal(fitted, image[:, 1:49, 2:50])


def test_a_large_picture_is_resized_to_image_size_over_crop_fraction_and_cropped() -> None:
    image = noise(100, 200)
    fitted = fit_image(image, Preprocessing(image_size=(28, 28), crop_fraction=0.875, interpolation="bilinear"))
    resized = F.resize(image, [32, 64], interpolation=InterpolationMode.BILINEAR, antialias=True)
    assert torch.equal(fitted, F.center_crop(resized, [28, 28]))


def test_a_small_picture_is_enlarged_whole() -> None:
    image = torch.zeros(3, 10, 10, dtype=torch.uint8)
    image[:, 0] = image[:, -1] = 255  # a border that an enlarging centre crop would cut off
    fitted = fit_image(image, Preprocessing(image_size=(40, 40), crop_fraction=0.5, interpolation="nearest"))
    assert (fitted[:, :4] == 255).all()
    assert (fitted[:, -4:] == 255).all()


def test_a_very_long_picture_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[list[int]] = []
    real = F.resize
    monkeypatch.setattr(
        F, "resize", lambda image, size, **options: (sizes.append(size), real(image, size, **options))[1]
    )
    assert fit_image(noise(1, 5000), Preprocessing(image_size=(32, 32))).shape == (3, 32, 32)
    assert max(sizes[0]) <= 8 * 32


def test_unknown_interpolation_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'cubic' does not exist; known: .*bicubic"):
        fit_image(noise(9, 9), Preprocessing(image_size=(5, 5), interpolation="cubic"))
