"""Latency on any phone or laptop, measured by its own browser: a page on the local network, and what devices send back.

The way of a measurement: :mod:`offer` reads what runs have, :mod:`app` serves page and files, the page measures with
onnxruntime-web (:mod:`assets`), :mod:`messages` checks what comes back, :mod:`store` keeps it, :mod:`board` says who
beats whom.
"""

from vitrail.serve.browser.assets import fetch_assets, find_assets
from vitrail.serve.browser.config import BrowserConfig
from vitrail.serve.browser.server import bench_in_browsers

__all__ = ["BrowserConfig", "bench_in_browsers", "fetch_assets", "find_assets"]
