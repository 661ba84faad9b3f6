from __future__ import annotations

import statistics

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from vitrail.serve.browser.messages import Measurement

KEYS = {"id": "0" * 32, "model": "0" * 16, "backend": "wasm", "threads": 1}
WHOLE = KEYS | {"samples_ms": [1.0], "load_ms": 1.0, "max_relative_error": 0.0}


@given(st.lists(st.floats(min_value=1e-4, max_value=1e6), min_size=1, max_size=400))
def test_percentiles_rise_and_are_samples(samples):
    measured = Measurement(**(WHOLE | {"samples_ms": samples}))
    low, median, p90, p99 = (measured.latency_ms(share) for share in (0, 0.5, 0.9, 0.99))
    assert low == min(samples)
    assert median == statistics.median(samples)
    assert low <= median <= max(p90, median) <= max(p99, median) <= max(samples)
    assert {p90, p99} <= set(samples)
    assert sum(sample <= p90 for sample in samples) >= 0.9 * len(samples)


def test_runs_are_samples_times_runs_a_sample():
    assert Measurement(**(WHOLE | {"samples_ms": [1.0] * 5, "runs_per_sample": 20})).num_runs == 100


@pytest.mark.parametrize("missing", ["samples_ms", "load_ms", "max_relative_error"])
def test_what_is_neither_whole_nor_failed_is_refused(missing):
    values = {key: value for key, value in WHOLE.items() if key != missing}
    with pytest.raises(ValidationError, match="nor a failure"):
        Measurement(**values)
    assert Measurement(**(values | {"failure": "no memory"})).failure == "no memory"
