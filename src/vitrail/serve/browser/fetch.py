"""``python -m vitrail.serve.browser.fetch``: onnxruntime-web into the package, for a wheel that carries it."""

from __future__ import annotations

import sys

from vitrail.core.errors import BenchError
from vitrail.serve.browser.assets import asset_folders, fetch_assets


def main() -> int:
    """Fetch, and return the exit status."""
    try:
        fetch_assets(asset_folders()[0])
    except BenchError as error:
        sys.stderr.write(f"vitrail: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
