"""Which exported files the page lists."""

from __future__ import annotations

import json
from pathlib import Path

from vitrail.report.contents import read_exports
from vitrail.runs.run import Run


def test_files_of_every_format_are_listed_onnx_first(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for path, size in ((run.exported("openvino"), 1234), (run.onnx("int8"), 99), (run.onnx("float"), 99)):
        path.write_bytes(b"12345")
        record = {"path": path.name, "size_bytes": size, "max_relative_error": 1e-6}
        path.with_name(path.name + ".json").write_text(json.dumps({"record": record}))
    (tmp_path / "model.bin").write_bytes(b"1")
    run.exported("coreml").mkdir()
    listed = [(record["file"], record["variant"], record["size_bytes"]) for record in read_exports(run)]
    folder = run.exported("coreml").stat().st_size
    assert listed == [
        ("model.onnx", "float", 5),
        ("model.int8.onnx", "int8", 5),
        ("model.xml", "float", 1234),
        ("model.mlpackage", "float", folder),
    ]
