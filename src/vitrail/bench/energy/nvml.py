"""NVML: the energy counter of an NVIDIA GPU, or its momentary power where it has no counter (before Volta).

It measures the whole board of one GPU and not the processor, so "auto" never selects it.
"""

from __future__ import annotations

from typing import Any

from vitrail.bench.energy.meter import Mark, Meter, unix_now
from vitrail.bench.energy.sampler import PowerSampler
from vitrail.core.errors import BenchError
from vitrail.core.extras import import_extra

POWER_INTERVAL_S = 0.1
"""Time between two updates of a board's power reading, about."""


def open_nvml(index: int = 0) -> Meter:
    """A meter of GPU number ``index``.

    Raises:
        MissingDependencyError: nvidia-ml-py is not installed.
        BenchError: no driver, no such GPU, or one that tells neither energy nor power.
    """
    pynvml = import_extra("pynvml", "nvidia-ml-py", "energy")
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        if not 0 <= index < count:
            raise BenchError(f"nvml:{index} does not exist; there are {count} GPUs, counted from 0")
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        reads = f"GPU {index}, {_name(pynvml, device)}"
        try:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(device)
        except pynvml.NVMLError_NotSupported:
            meter = PowerSampler(
                lambda: _call(pynvml, pynvml.nvmlDeviceGetPowerUsage, device) / 1e3,
                interval_s=POWER_INTERVAL_S,
                source="nvml",
                reads=f"{reads}, power",
                settle_seconds=1.0,  # many boards report a mean over the last second
            )
            return meter.start()
        return NvmlCounter(pynvml, device, reads)
    except pynvml.NVMLError as error:
        raise BenchError(f"NVML cannot be used here: {error}; use another meter") from error


class NvmlCounter:
    """Millijoules since the driver was loaded; renewed every 20 to 100 ms."""

    source = "nvml"
    place = ""
    window_seconds = 5.0
    settle_seconds = 0.2

    def __init__(self, library: Any, device: Any, reads: str) -> None:
        self._library, self._device, self.reads = library, device, reads

    def mark(self) -> Mark:
        count = _call(self._library, self._library.nvmlDeviceGetTotalEnergyConsumption, self._device)
        return Mark(unix_now(), (count,))

    def energy_j(self, start: Mark, end: Mark) -> float:
        spent = end.counters[0] - start.counters[0]
        if spent < 0:
            raise BenchError(f"the counter of {self.reads} went back: the driver was loaded again; measure again")
        return spent / 1e3

    def close(self) -> None:
        """Nothing is held open."""


def _call(library: Any, function: Any, device: Any) -> float:
    try:
        return float(function(device))
    except library.NVMLError as error:
        raise BenchError(f"NVML stopped answering: {error}; measure again") from error


def _name(library: Any, device: Any) -> str:
    name = library.nvmlDeviceGetName(device)
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
