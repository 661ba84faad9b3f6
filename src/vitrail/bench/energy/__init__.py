"""Energy in joules: one interface to every meter, one file a meter, and the measurement that uses them.

Where there is no meter the user may state a power; the result is called an estimate wherever it appears.
"""

from vitrail.bench.energy.choose import open_meter
from vitrail.bench.energy.meter import ESTIMATED, SOURCES, Mark, Meter, unix_now
from vitrail.bench.energy.result import Energy, EnergyWindow
from vitrail.bench.energy.trace import PowerTrace
from vitrail.bench.energy.windows import attach_trace, measure_energy

__all__ = [
    "ESTIMATED",
    "SOURCES",
    "Energy",
    "EnergyWindow",
    "Mark",
    "Meter",
    "PowerTrace",
    "attach_trace",
    "measure_energy",
    "open_meter",
    "unix_now",
]
