from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from report.pretend import CLASSES, HOSTILE, PIXEL, report, row

from vitrail.bench import append_results
from vitrail.core.files import write_json
from vitrail.runs.run import Run


@pytest.fixture
def bare_run(tmp_path: Path) -> Run:
    """A run that has been described and nothing else."""
    run = Run(tmp_path / "signs")
    run.update(
        model={"name": "edgevit_nano_stride2", "fields": {}},
        task="classification",
        classes=CLASSES,
        preprocessing={"image_size": [48, 32]},
        data={"path": f"photos/{HOSTILE}", "fingerprint": "abc123", "num_train": 30, "num_val": 6, "num_test": 12},
        seed=3,
        versions={"torch": "2.15.0"},
        command=f"/somewhere/bin/vitrail train --run signs --data 'photos/{HOSTILE}'",
        status="trained",
    )
    return run


@pytest.fixture
def full_run(bare_run: Run) -> Run:
    """A run with every artefact."""
    run = bare_run
    run.weights.write_bytes(b"\0" * 4_000_000)
    run.metrics.write_text(
        "epoch,learning_rate,train_loss,val_loss,val_top1,val_top5\n1,0.001,2,1.9,0.4,0.9\n2,0.0,1,1,0.8,1\n"
    )
    example = {"name": f"{HOSTILE}/1.jpg", "probability": 0.91, "jpeg_base64": PIXEL}
    write_json(
        run.evaluation,
        {
            "split": "test",
            "reports": {
                "torch-float": report(0.75, 1.0),
                "onnx-float": report(0.75, 1.0),
                "onnx-int8": report(0.7, 0.9),
                "openvino-int8": report(0.7, 0.9),
            },
            "examples": [
                example | {"label": "cat", "predicted": "cat"},
                example | {"label": "cat", "predicted": HOSTILE},
            ],
            "data": {
                "source": f"photos/{HOSTILE}",
                "fingerprint": "abc123",
                "classes": CLASSES,
                "counts": {"train": [10, 11, 9], "val": [2, 2, 2], "test": [4, 4, 4]},
                "skipped": [f"{HOSTILE}.jpg: truncated"],
                "samples": [{"name": "1.jpg", "label": HOSTILE, "jpeg_base64": PIXEL}],
            },
        },
    )
    run.explanation.mkdir()
    run.figures.mkdir()
    for path in (run.explanation / "attention.png", run.figures / "robustness-translation.png"):
        path.write_bytes(base64.b64decode(PIXEL))
    (run.explanation / "collapse.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    robustness = {"clean_top1": 0.75, "num_images": 12, "skipped": {"resolution 0.5": HOSTILE}, "curves": []}
    robustness |= {"diagonal_consistency": 0.625, "summary": {"translation": {"top1": 0.5, "consistency": 0.875}}}
    write_json(run.robustness, robustness)
    operands = [{"name": f"blocks.{i}.fc:{role}"} for i in range(5) for role in ("input", "weight")]
    config = {"weight_bits": 8, "activation_bits": 8, "observer": "min_max"}
    plan = {"config": config, "num_images": 64, "operands": operands, "skipped": ["stem.0: depthwise"], "notes": []}
    write_json(run.quantization, plan)
    for variant, size in (("float", 4_000_000), ("int8", 1_100_000)):
        path = run.onnx(variant)
        path.write_bytes(b"\0" * size)
        record = {"max_relative_error": 1e-6, "top1_agreement": 1.0, "num_images": 16, "variant": variant}
        path.with_name(path.name + ".json").write_text(json.dumps({"record": record}))
    append_results(
        run.bench_rows,
        [
            row("torch float", 10.0),
            row("torch-compile float", None, failure=f"no C++ compiler {HOSTILE}"),
            row("onnxruntime float", 4.0),
            row("onnxruntime int8", 2.0),
            row("openvino int8", 5.0),
        ],
    )
    return run
