from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from vitrail.bench.protocol import BenchConfig, Clock, is_contended, measure, percentile, reason_of, warm_up
from vitrail.core.errors import BenchError, ConfigError


class FakeMachine:
    """A clock that moves only when a candidate runs."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.ran: list[str] = []
        self.clock = Clock(wall=lambda: self.wall, cpu=lambda: self.cpu)

    def candidate(self, name: str, walls: list[float], cpu_share: float = 1.0):
        """Takes ``walls`` seconds in turn; the last one for ever."""
        waiting = list(walls)

        def call() -> None:
            seconds = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            self.ran.append(name)
            self.wall += seconds
            self.cpu += seconds * cpu_share

        return call


def config(**values) -> BenchConfig:
    return BenchConfig(**{"min_runs": 4, "min_seconds": 0, "warmup_runs": 1, "budget_seconds": 1e9} | values)


def test_every_round_runs_every_candidate_once_in_a_shuffled_order():
    machine = FakeMachine()
    calls = {name: machine.candidate(name, [1.0]) for name in "abc"}
    measure(calls, config(min_runs=20, seed=3), clock=machine.clock)
    timed = machine.ran[3:]  # one warm-up run each
    assert len(timed) == 20 * 3 * 2
    rounds = [timed[i : i + 6] for i in range(0, len(timed), 6)]
    for one in rounds:  # an untimed run and a timed one, back to back
        assert one[0::2] == one[1::2]
        assert sorted(one[0::2]) == ["a", "b", "c"]
    expected = random.Random(3)
    assert [r[0::2] for r in rounds] == [expected.sample(["a", "b", "c"], 3) for _ in range(20)]
    assert len({tuple(r) for r in rounds}) > 1


def test_timings_are_those_of_the_second_run_of_a_turn():
    machine = FakeMachine()
    # warm-up 9; then (untimed, timed) pairs
    call = machine.candidate("a", [9.0, 5.0, 1.0, 5.0, 2.0, 5.0, 4.0, 5.0, 3.0], cpu_share=0.5)
    timings = measure({"a": call}, config(), clock=machine.clock)["a"]
    assert timings.wall == pytest.approx((1.0, 2.0, 4.0, 3.0))
    assert timings.cpu == pytest.approx((0.5, 1.0, 2.0, 1.5))
    assert timings.failure is None


def test_more_rounds_until_min_seconds_and_fewer_when_the_budget_ends():
    machine = FakeMachine()
    timings = measure({"a": machine.candidate("a", [0.5])}, config(min_seconds=10), clock=machine.clock)
    assert len(timings["a"].wall) == 10  # a turn takes 2 x 0.5 s
    machine = FakeMachine()
    slow = measure({"a": machine.candidate("a", [0.5])}, config(min_runs=50, budget_seconds=3), clock=machine.clock)
    assert len(slow["a"].wall) == 3


def test_a_budget_of_nothing_still_gives_one_round():
    machine = FakeMachine()
    timings = measure({"a": machine.candidate("a", [1.0])}, config(budget_seconds=0), clock=machine.clock)
    assert len(timings["a"].wall) == 1


def test_a_candidate_that_fails_leaves_and_the_others_go_on():
    machine = FakeMachine()
    turns = iter(range(100))

    def breaks() -> None:
        if next(turns) == 3:
            raise RuntimeError("out of registers")

    def never() -> None:
        raise ValueError("no such kernel")

    timings = measure({"a": machine.candidate("a", [1.0]), "b": breaks, "c": never}, config(), clock=machine.clock)
    assert len(timings["a"].wall) == 4
    assert (timings["b"].failure, len(timings["b"].wall)) == ("out of registers", 1)
    assert timings["c"].failure == "no such kernel"


def test_warm_up_ends_when_two_windows_agree():
    machine = FakeMachine()
    call = machine.candidate("a", [100.0, 9, 9, 9, 9, 9, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3])
    # The first run is not looked at. Medians 9 and 3 differ; they agree when three 3s are in the earlier window.
    assert warm_up(call, config(warmup_runs=100, warmup_seconds=1e9), machine.clock) == 1 + 5 + 8


def test_warm_up_is_bounded_by_runs_and_by_seconds():
    machine = FakeMachine()
    doubling = [2.0**i for i in range(40)]
    assert warm_up(machine.candidate("a", doubling), config(warmup_runs=12, warmup_seconds=1e9), machine.clock) == 12
    machine = FakeMachine()
    assert warm_up(machine.candidate("a", doubling), config(warmup_runs=40, warmup_seconds=5), machine.clock) == 3


def test_percentile_is_nearest_rank():
    values = [10.0, 1.0, 3.0, 2.0, 4.0, 5.0, 9.0, 8.0, 7.0, 6.0]
    assert percentile(values, 0.9) == 9.0
    assert percentile(values, 1.0) == 10.0
    assert percentile([4.0, 1.0], 0.5) == 1.0
    with pytest.raises(BenchError, match="budget_seconds"):
        percentile([], 0.9)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_percentile_covers_its_share(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(v <= found for v in values) >= share * len(values) - 1e-9


@pytest.mark.parametrize(
    ("wall", "cpu", "threads", "contended"),
    [
        (1.0, 1.0, 1, False),
        (1.19, 1.0, 1, False),
        (1.21, 1.0, 1, True),  # waited for a core
        (1.0, 1.21, 1, True),  # more threads than asked for
        (1.0, 1.9, 2, False),
        (1.0, 1.0, 2, False),  # serial parts
        (1.0, 2.5, 2, True),
    ],
)
def test_contention(wall, cpu, threads, contended):
    assert is_contended(wall, cpu, threads) is contended


def test_reasons_are_one_line_without_folders():
    error = RuntimeError("cannot open '/home/someone/secret/model.onnx'\n  at line 3")
    assert reason_of(error) == "cannot open model.onnx' at line 3"
    assert reason_of(KeyError()) == "KeyError"
    assert len(reason_of(ValueError("x" * 1000))) == 300


@pytest.mark.parametrize(
    "values",
    [
        {"threads": (0,)},
        {"threads": 1},
        {"batch_size": (1, 1)},
        {"energy_seconds": 0},
        {"min_runs": 0},
        {"budget_seconds": -1},
        {"runtimes": ("tensorrt",)},
    ],
)
def test_bad_configurations(values):
    with pytest.raises(ConfigError):
        BenchConfig(**values)
