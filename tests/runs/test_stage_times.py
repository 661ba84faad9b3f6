from __future__ import annotations

from vitrail.bench import BenchConfig
from vitrail.runs.quantize import CalibrationConfig
from vitrail.runs.run import Run
from vitrail.runs.stage_times import expected_seconds, following, seconds_left


def test_slow_models_and_long_measurements_take_longer(bare_run: Run) -> None:
    description, calibration, bench = bare_run.read(), CalibrationConfig(), BenchConfig()
    quick = expected_seconds(description, calibration, bench, 0.1)
    slow = expected_seconds(description, calibration, bench, 10.0)
    assert list(quick) == ["Quantize", "Export", "Evaluate", "Bench", "Report"]
    assert all(slow[stage] > quick[stage] for stage in ("Quantize", "Export", "Evaluate", "Bench"))
    assert expected_seconds(description, calibration, BenchConfig(memory=False), 0.1)["Bench"] < quick["Bench"]
    assert following(bare_run, calibration, bench)(0.1) == sum(quick.values())


def test_measured_stages_scale_the_others(bare_run: Run) -> None:
    bare_run.metrics.write_text("epoch,learning_rate,train_loss,val_loss,val_top1,seconds\n1,0.001,2,1.9,0.4,3.0\n")
    configs = CalibrationConfig(), BenchConfig()
    expected = expected_seconds(bare_run.read(), *configs, 3.0)
    whole = seconds_left(bare_run, *configs, {"Train": 20.0})
    assert whole == sum(expected.values())
    twice = seconds_left(bare_run, *configs, {"Train": 20.0, "Quantize": 2 * expected["Quantize"]})
    assert twice == 2 * (whole - expected["Quantize"])
    stuck = seconds_left(bare_run, *configs, {"Quantize": 1e9})
    assert stuck == 5 * (whole - expected["Quantize"])


def test_nothing_is_guessed_without_a_curve(bare_run: Run) -> None:
    for text in (None, "", "epoch,train_loss\n1,2\n", "epoch,seconds\n1,soon\n"):
        if text is not None:
            bare_run.metrics.write_text(text)
        assert seconds_left(bare_run, CalibrationConfig(), BenchConfig(), {}) is None
