"""What ``import vitrail.quantization`` loads."""

from __future__ import annotations

import subprocess
import sys


def test_no_figure_library_is_loaded() -> None:
    code = "import sys, vitrail.quantization; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
