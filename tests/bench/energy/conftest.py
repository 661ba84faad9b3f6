from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

RANGE_UJ = 500_000_000
"""Of the pretended counters: small, so that a measurement wraps several times."""


class World:
    """A machine whose power is known, and whose clock moves only when something runs or sleeps."""

    def __init__(self, *, idle_w: float = 2.0, package: Path | None = None) -> None:
        self.now = 1_800_000_000.0
        self.cpu = 0.0
        self.idle_w = idle_w
        self.joules = 499.0  # the counter is about to wrap
        self.power: list[tuple[float, float]] = []
        self.package = package

    def spend(self, seconds: float, watts: float, cpu: float = 0.0) -> None:
        self.power += [(self.now, watts), (self.now + seconds - 1e-6, watts)]
        self.now += seconds
        self.cpu += cpu
        self.joules += watts * seconds
        if self.package is not None and self.package.exists():
            self.package.write_text(f"{int(self.joules * 1e6) % RANGE_UJ}\n")

    def sleep(self, seconds: float) -> None:
        self.spend(seconds, self.idle_w)

    def clock(self) -> float:
        return self.now

    def work(self, seconds: float, extra_w: float, busy: float = 1.0) -> Callable[[], None]:
        """Takes ``seconds`` and ``extra_w`` above idling."""
        return lambda: self.spend(seconds, self.idle_w + extra_w, seconds * busy)


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """A powercap tree as an Intel laptop has it: what counts is package-0 and its memory."""
    tree = tmp_path / "powercap"
    zones = {
        "intel-rapl": None,
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "uncore",
        "intel-rapl:0:2": "dram",
        "intel-rapl:1": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    for folder, name in zones.items():
        (tree / folder).mkdir(parents=True)
        if name:
            (tree / folder / "name").write_text(name + "\n")
            (tree / folder / "energy_uj").write_text("499000000\n")
            (tree / folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return tree


@pytest.fixture
def world(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine whose package-0 counter is in the powercap tree."""
    made = World(package=powercap / "intel-rapl:0" / "energy_uj")
    for module in ("rapl", "estimate", "csv_trace", "nvml"):
        monkeypatch.setattr(f"vitrail.bench.energy.{module}.unix_now", made.clock)
    return made
