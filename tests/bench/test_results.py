from __future__ import annotations

import json
import os

import pytest

from vitrail.bench import BenchResult, Energy, append_results, latest_results, read_results
from vitrail.core.errors import BenchError, VitrailError


def row(name="torch float", **values) -> BenchResult:
    runtime, variant = name.split()
    return BenchResult(name=name, runtime=runtime, variant=variant, **values)


def test_rows_survive_the_file(tmp_path):
    path = tmp_path / "bench.jsonl"
    first = row(latency_ms_median=1.5, image_size=(48, 32), options={"a": "b"}, environment={"cores": 2})
    second = row("onnxruntime int8", failure="no kernel – sorry")
    append_results(path, [first])
    append_results(path, [second])
    assert read_results(path) == [first, second]
    assert len(path.read_text().splitlines()) == 2


def test_a_cut_last_line_is_passed_over_and_does_not_swallow_the_next_row(tmp_path):
    path = tmp_path / "bench.jsonl"
    append_results(path, [row(latency_ms_median=1.0)])
    with path.open("a") as file:
        file.write('{"name": "openvino flo')
    assert [r.name for r in read_results(path)] == ["torch float"]
    append_results(path, [row("onnxruntime float")])
    assert [r.name for r in read_results(path)] == ["torch float", "onnxruntime float"]
    assert '{"name": "openvino flo\n' in path.read_text()


@pytest.mark.parametrize("line", ["[]", "3", "null", '{"name": "x"}', "\x00\x00"])
def test_foreign_rows_are_left_out_and_counted(tmp_path, line, caplog):
    path = tmp_path / "bench.jsonl"
    path.write_text("\n" + json.dumps(row().to_dict()) + "\n" + line + "\n")
    assert read_results(path) == [row()]
    assert f"{path}: 1 of 2 rows are left out, first line 3" in caplog.text


def test_empty_lines_are_no_rows(tmp_path, caplog):
    path = tmp_path / "bench.jsonl"
    path.write_text("\n" + json.dumps(row().to_dict()) + "\n \n")
    assert (read_results(path), caplog.text) == ([row()], "")


def test_fields_of_later_versions_are_left_out():
    assert BenchResult.from_dict(row().to_dict() | {"energy_mj": 4}) == row()
    with pytest.raises(BenchError, match="runtime"):
        BenchResult.from_dict({"name": "a", "variant": "float"})


def test_latest_row_of_every_candidate(tmp_path):
    path = tmp_path / "bench.jsonl"
    old, other, four = row(num_runs=1), row("openvino int8"), row(num_runs=4, threads=4)
    append_results(path, [old, other, four, row(num_runs=2)])
    assert latest_results(path) == [row(num_runs=2), other, four]


def test_another_device_does_not_take_the_place_of_this_machine(tmp_path):
    path = tmp_path / "bench.jsonl"
    here, phone, tablet = row(num_runs=1), row(num_runs=2, device="phone"), row(num_runs=3, device="tablet")
    append_results(path, [here, phone, tablet])
    assert latest_results(path) == [here]
    assert latest_results(path, device="phone") == [phone]
    assert latest_results(path, device=None) == [here, phone, tablet]


def test_no_file_no_rows(tmp_path):
    assert read_results(tmp_path / "bench.jsonl") == []


def test_energy_survives_the_file_and_a_value_without_a_source_is_no_row(tmp_path):
    path = tmp_path / "bench.jsonl"
    energy = Energy(source="estimated", energy_mj=3.5, ci95_mj=(3.0, 4.0), reads="processor time")
    append_results(path, [row(energy=energy, warnings=("hot",), latency_ms_median=4.0, batch_size=2)])
    (read,) = read_results(path)
    assert read.energy == energy
    assert read.warnings == ("hot",)
    values = json.loads(path.read_text())
    assert values["images_per_second"] == 500.0
    del values["energy"]["source"]
    path.write_text(json.dumps(values))
    assert read_results(path) == []


@pytest.mark.parametrize(
    "device", ["Lab\u2028two", "a\u0085b", "a\u2029b", "a\x0bb\x0cc\x1cd\x1ee", "a\r\nb", "猫 🐈", "no UTF-8: \udcff"]
)
def test_rows_end_at_line_feeds_alone(tmp_path, device):
    path = tmp_path / "bench.jsonl"
    append_results(path, [row(device=device), row()])
    assert read_results(path) == [row(device=device), row()]


def test_rows_of_other_line_ends_and_without_a_last_one_are_read(tmp_path):
    path = tmp_path / "bench.jsonl"
    texts = [json.dumps(row(num_runs=number).to_dict()).encode() for number in range(2)]
    path.write_bytes(b"\r\n".join(texts))
    assert read_results(path) == [row(num_runs=0), row(num_runs=1)]
    append_results(path, [row(num_runs=2)])
    assert [one.num_runs for one in read_results(path)] == [0, 1, 2]


def test_nested_rows_are_passed_over_and_pipes_refused(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text("[" * 100_000 + "\n" + '{"a":' * 100_000 + "\n")
    append_results(path, [row()])
    assert read_results(path) == [row()]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BenchError, match=r"cannot read .*bench.jsonl: it is a named pipe"):
        read_results(path)
    with pytest.raises(VitrailError, match=r"cannot write .*bench.jsonl: it is a named pipe"):
        append_results(path, [row()])
