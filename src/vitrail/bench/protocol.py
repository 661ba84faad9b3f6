"""How candidates are timed: warm-up until stable, then shuffled rounds in which every candidate runs once.

A shared machine drifts (other jobs, clock frequency, temperature). Timing one candidate after the other would put that
drift into the comparison; rounds give every candidate the same share of it. Beside the wall clock, the processor time
of the process is read for every run: where the two disagree, the machine was not ours and the row says so.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vitrail.core.config import convert_fields
from vitrail.core.errors import BenchError, ConfigError
from vitrail.runtimes import USUAL_RUNTIMES, RuntimeName

CONTENTION_RATIO = 1.2
"""Wall and processor time may differ by this factor before a measurement counts as contended."""

WINDOW = 5
"""Runs that a median of the warm-up is taken over."""

STABLE_WITHIN = 0.05
"""Medians of neighbouring windows that differ by less, relatively, count as stable."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """How to measure.

    Attributes:
        threads: numbers of CPU threads; each is measured, side by side.
        batch_size: numbers of images a call; 1 measures latency, larger numbers throughput. Each is measured, side by
            side.
        min_runs: number of timed runs of every candidate, unless the budget ends before.
        min_seconds: shortest time of all rounds in seconds; fast models get more runs than the minimum.
        budget_seconds: longest time of all rounds in seconds; no round starts after it.
        warmup_runs: largest number of untimed runs of every candidate.
        warmup_seconds: longest warm-up of a candidate in seconds, without its first run.
        memory: measure peak memory too, in a fresh process for every candidate.
        runtimes: runtimes to measure; executorch, litert and aoti need files of these formats.
        baseline: candidate to which ratios are taken, e.g. "onnxruntime float", or "photos/onnxruntime float" for
            several runs. Default: PyTorch.
        cores: numbers of the CPU cores that the measurement uses. Default: the system chooses.
        energy: meter of energy: auto, rapl, nvml[:GPU], jetson, battery[:SERIAL], csv:FILE[@START] or estimate:WATTS
            (of a busy core). Default: none.
        energy_rounds: number of energy windows of every candidate.
        energy_seconds: length of an energy window in seconds. Default: what the meter needs.
        seed: random seed of the images and of the order in each round.
    """

    threads: tuple[int, ...] = (1,)
    batch_size: tuple[int, ...] = (1,)
    min_runs: int = 50
    min_seconds: float = 2.0
    budget_seconds: float = 30.0
    warmup_runs: int = 50
    warmup_seconds: float = 2.0
    memory: bool = True
    runtimes: tuple[RuntimeName, ...] = USUAL_RUNTIMES
    baseline: str = ""
    cores: tuple[int, ...] = ()
    energy: str = ""
    energy_rounds: int = 5
    energy_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("min_runs", "warmup_runs", "energy_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError("is below 1; give a positive number", **{name: getattr(self, name)})
        for name in ("threads", "batch_size"):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple):
                raise ConfigError(f"is not a tuple; give one number or several: ({numbers},)", **{name: numbers})
            if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
                raise ConfigError("is not allowed; give positive numbers, each once", **{name: numbers})
        if self.energy_seconds is not None and not self.energy_seconds > 0:
            raise ConfigError("is not above 0; give seconds, or leave it out", energy_seconds=self.energy_seconds)
        for name in ("min_seconds", "budget_seconds", "warmup_seconds"):
            if getattr(self, name) < 0:
                raise ConfigError("is negative; give seconds", **{name: getattr(self, name)})


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Where times come from; tests bring their own.

    Attributes:
        wall: seconds on the wall.
        cpu: seconds of processor time of this process, all threads together.
    """

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Every timed run of a candidate, in seconds and in order.

    Attributes:
        wall, cpu: one value a run.
        failure: why the candidate stopped, None if it did not.
    """

    wall: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()
    failure: str | None = None


@dataclass
class _Turns:
    """A candidate that is being timed: its timings so far."""

    call: Callable[[], object]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    failure: str | None = None

    def run(self, clock: Clock) -> None:
        """One untimed run, because the others have emptied the caches since, then a timed one."""
        try:
            self.call()
            wall, cpu = clock.wall(), clock.cpu()
            self.call()
            cpu, wall = clock.cpu() - cpu, clock.wall() - wall
        except Exception as error:  # noqa: BLE001 (whatever a runtime raises becomes the candidate's row)
            self.failure = reason_of(error)
        else:
            self.wall.append(wall)
            self.cpu.append(cpu)


def measure(
    calls: Mapping[str, Callable[[], object]],
    config: BenchConfig,
    *,
    clock: Clock | None = None,
    on_round: Callable[[], None] | None = None,
) -> dict[str, Timings]:
    """Time all candidates against each other.

    Args:
        calls: name -> function that runs one batch.
        config: see :class:`BenchConfig`.
        clock: where times come from.
        on_round: called after every round.

    Returns:
        timings of every name; a candidate that raises keeps its reason and takes no further part.
    """
    clock = clock or Clock()
    turns = {name: _Turns(call) for name, call in calls.items()}
    for turn in turns.values():
        try:
            warm_up(turn.call, config, clock)
        except Exception as error:  # noqa: BLE001 (as above)
            turn.failure = reason_of(error)
    order = random.Random(config.seed)
    start, rounds = clock.wall(), 0
    while True:
        alive = [turn for turn in turns.values() if turn.failure is None]
        spent = clock.wall() - start
        enough = rounds >= config.min_runs and spent >= config.min_seconds
        if not alive or enough or (rounds and spent >= config.budget_seconds):
            break
        for turn in order.sample(alive, len(alive)):
            turn.run(clock)
        rounds += 1
        if on_round:
            on_round()
    return {n: Timings(wall=tuple(t.wall), cpu=tuple(t.cpu), failure=t.failure) for n, t in turns.items()}


def warm_up(call: Callable[[], object], config: BenchConfig, clock: Clock) -> int:
    """Run until the medians of two neighbouring windows of runs agree; returns the number of runs.

    The first run, which may compile, counts for nothing.
    """
    call()
    times: list[float] = []
    start = clock.wall()
    while len(times) < config.warmup_runs - 1 and clock.wall() - start < config.warmup_seconds:
        before = clock.wall()
        call()
        times.append(clock.wall() - before)
        if len(times) >= 2 * WINDOW:
            earlier, later = statistics.median(times[-2 * WINDOW : -WINDOW]), statistics.median(times[-WINDOW:])
            if abs(later - earlier) <= STABLE_WITHIN * earlier:
                break
    return len(times) + 1


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed (nearest rank).

    Raises:
        BenchError: no values.
    """
    if not values:
        raise BenchError("no timed runs; raise budget_seconds")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def is_contended(wall: float, cpu: float, threads: int) -> bool:
    """Whether wall and processor time of a run contradict a quiet machine with ``threads`` threads.

    Serial parts let a run use anything between one core and ``threads`` cores. Waiting for a core shows as more wall
    than processor time; a runtime that ignores its limit shows as more processor time than ``threads`` cores have.
    """
    return wall > CONTENTION_RATIO * cpu or cpu > CONTENTION_RATIO * threads * wall


def reason_of(error: BaseException) -> str:
    """An error as one short line that is fit for a result file: no stack, no folders of this machine."""
    text = " ".join((str(error).strip() or type(error).__name__).split())
    words = [word.rsplit("/", 1)[-1] if word.lstrip("'\"(").startswith("/") else word for word in text.split(" ")]
    text = " ".join(words)
    return text if len(text) <= 300 else text[:299] + "…"
