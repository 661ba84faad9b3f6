"""What ``import vitrail`` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vitrail


def test_every_public_name_is_there() -> None:
    assert all(callable(getattr(vitrail, name)) for name in vitrail.__all__ if name != "__version__")
    assert set(vitrail.__all__) <= set(dir(vitrail))
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        _ = vitrail.creat_model


def test_importing_loads_no_pytorch() -> None:
    code = "import sys, vitrail; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
