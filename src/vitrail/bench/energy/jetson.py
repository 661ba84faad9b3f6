"""INA power sensors through hwmon: the rails of a Jetson board (INA3221), or a sensor soldered to another one.

Units are the kernel's: ``power*_input`` in microwatts, ``in*_input`` in millivolts, ``curr*_input`` in milliamperes.
Where a rail carries the whole board (``VDD_IN``, ``POM_5V_IN``) it alone is read; boards without one (AGX Xavier, AGX
Orin) are the sum of their rails, as NVIDIA's guide has it.

Source: Documentation/hwmon/sysfs-interface.rst and ina3221.rst of the Linux kernel; NVIDIA Jetson Linux Developer
Guide, "Software-Based Power Consumption Modeling".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitrail.bench.energy.sampler import PowerSampler
from vitrail.core.errors import BenchError

HWMON = Path("/sys/class/hwmon")
WHOLE_BOARD = re.compile(r"_IN$|TOTAL", re.IGNORECASE)
INTERVAL_S = 0.05


@dataclass(frozen=True)
class Rail:
    """A supply line: its name, the chip that measures it, and the function that reads its watts."""

    name: str
    chip: str
    watts: Callable[[], float]


def open_ina(tree: Path = HWMON) -> PowerSampler:
    """A meter of the board's supply.

    Raises:
        BenchError: there is no INA sensor, or it cannot be read.
    """
    rails = find_rails(tree)
    if not rails:
        raise BenchError("there is no INA power sensor here (hwmon lists none); use another meter")
    whole = [rail for rail in rails if WHOLE_BOARD.search(rail.name)][:1]
    used = whole or rails
    return PowerSampler(
        lambda: sum(rail.watts() for rail in used),
        interval_s=INTERVAL_S,
        source="jetson" if any(rail.chip.startswith("ina3221") for rail in used) else "ina",
        reads=" + ".join(rail.name for rail in used),
        settle_seconds=0.2,
    ).start()


def find_rails(tree: Path) -> list[Rail]:
    """Every channel of every INA chip that tells power, or voltage and current."""
    rails = []
    for folder in sorted(tree.glob("hwmon*")):
        chip = _text(folder / "name")
        if not chip.startswith("ina"):
            continue
        powers = sorted(folder.glob("power*_input"))
        rails += [Rail(_label(folder, file, "power", chip), chip, _scaled(file)) for file in powers]
        # A chip that gives power shows voltage and current too; they are not another rail.
        rails += [] if powers else _products(folder, chip)
    return rails


def _products(folder: Path, chip: str) -> list[Rail]:
    rails = []
    for volts in sorted(folder.glob("in*_input")):
        amperes = folder / volts.name.replace("in", "curr", 1)
        name = _label(folder, volts, "in", chip)
        switched_off = _text(folder / volts.name.replace("input", "enable")) == "0"
        # Channels 4 to 7 of an INA3221 are voltages over the shunts and their sum.
        if amperes.exists() and not switched_off and "shunt voltage" not in name.lower():
            rails.append(Rail(name, chip, _product(volts, amperes)))
    return rails


def _scaled(file: Path) -> Callable[[], float]:
    return lambda: _number(file) / 1e6


def _product(volts: Path, amperes: Path) -> Callable[[], float]:
    return lambda: _number(volts) * _number(amperes) / 1e6


def _label(folder: Path, file: Path, kind: str, chip: str) -> str:
    number = file.name.removeprefix(kind).removesuffix("_input")
    return _text(folder / f"{kind}{number}_label") or _text(folder / f"in{number}_label") or f"{chip} {kind}{number}"


def _number(file: Path) -> float:
    try:
        return float(file.read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BenchError(
            f"power sensor {file.parent.name}/{file.name} cannot be read: {reason}; measure again"
        ) from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
