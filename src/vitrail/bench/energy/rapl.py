"""RAPL: the energy counters of Intel and AMD processors, through Linux's powercap tree.

A package's counter holds cores, caches and graphics; memory ("dram") has one of its own beside it. ``core`` and
``uncore`` are parts of their package, ``psys`` contains it: adding them would count twice. The counters are renewed
every millisecond and wrap around at ``max_energy_range_uj``, minutes to an hour apart.

Source: Documentation/power/powercap/powercap.rst of the Linux kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vitrail.bench.energy.meter import Mark, unix_now
from vitrail.core.errors import BenchError

POWERCAP = Path("/sys/class/powercap")
MAX_POWER_W = 1000.0
"""Power that no zone exceeds; a window in which it would wrap the counter twice is refused."""


@dataclass(frozen=True)
class Zone:
    """A counter: its file, its name in results, and the value at which it wraps."""

    file: Path
    name: str
    range_uj: int

    def read(self) -> int:
        try:
            return int(self.file.read_text())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BenchError(f"RAPL counter {self.name} cannot be read any more: {reason}; measure again") from error


class RaplMeter:
    """Packages and their memory, added up.

    Args:
        tree: the powercap folder.

    Raises:
        BenchError: there are no counters, or this user may not read them.
    """

    source = "rapl"
    place = ""
    window_seconds = 1.0
    settle_seconds = 0.05

    def __init__(self, tree: Path = POWERCAP) -> None:
        self.zones = find_zones(tree)
        if not self.zones:
            raise BenchError("there are no RAPL counters here (no intel-rapl zones in powercap); use another meter")
        self.reads = " + ".join(zone.name for zone in self.zones)

    def mark(self) -> Mark:
        return Mark(unix_now(), tuple(float(zone.read()) for zone in self.zones))

    def energy_j(self, start: Mark, end: Mark) -> float:
        total_uj = 0.0
        for zone, before, after in zip(self.zones, start.counters, end.counters, strict=True):
            longest_s = zone.range_uj / 1e6 / MAX_POWER_W
            if end.unix_s - start.unix_s > longest_s:
                raise BenchError(
                    f"a window of {end.unix_s - start.unix_s:.0f} s may wrap RAPL's {zone.name} counter twice; "
                    f"keep energy_seconds below {longest_s:.0f}"
                )
            total_uj += after - before + (zone.range_uj if after < before else 0)
        return total_uj / 1e6

    def close(self) -> None:
        """Nothing is held open."""


def find_zones(tree: Path) -> tuple[Zone, ...]:
    """Packages, and memory beside them, of the ``intel-rapl`` control type (which serves AMD too)."""
    zones = []
    # "intel-rapl-mmio:0" is the same package through another interface.
    for folder in sorted(tree.glob("intel-rapl:*")):
        name = _text(folder / "name")
        is_package = folder.name.count(":") == 1 and name.startswith("package")
        is_memory = folder.name.count(":") == 2 and name == "dram"
        if not (is_package or is_memory):
            continue
        _check_readable(folder / "energy_uj", name)
        number = folder.name.split(":")[1]
        shown = name if is_package else f"dram-{number}"
        zones.append(Zone(folder / "energy_uj", shown, int(_text(folder / "max_energy_range_uj") or 2**32)))
    return tuple(zones)


def _check_readable(file: Path, name: str) -> None:
    try:
        int(file.read_text())
    except PermissionError as error:
        raise BenchError(
            f"RAPL counter {name} may be read by root only; allow it until the next start with: "
            "sudo chmod -R a+r /sys/class/powercap/intel-rapl/"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BenchError(f"RAPL counter {name} cannot be read: {reason}; use another meter") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
