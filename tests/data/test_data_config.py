from __future__ import annotations

import pytest

from vitrail.core.errors import ConfigError
from vitrail.data import DataConfig


@pytest.mark.parametrize(
    "options", [{"val_fraction": 0.0}, {"val_fraction": 1.5}, {"max_bad_fraction": -1}, {"max_pixels": 0}]
)
def test_configuration_is_checked(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        DataConfig(**options)
