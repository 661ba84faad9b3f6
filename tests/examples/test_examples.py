"""Every example runs, in its order, since later ones use what earlier ones left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
EXPECTED = {
    "01_look_inside_a_model": ("edgevit_xxs", "stride 32"),
    "02_train": ("top-1", "of 300 images", "runs/example"),
    "03_quantize_and_export": ("model.onnx", "model.int8.onnx"),
    "04_predict_without_pytorch": ('"image": "a grey image"', '"probability": '),
    "05_measure": ("onnxruntime int8", "openvino float", "ms, 90 % below"),
    "06_quantize_a_timm_model": ("runs/timm/model.int8.onnx", "relative error"),
    "07_own_token_mixer": ("runs/own-mixer needs the token mixer ShiftMixer of", "07_own_token_mixer.py"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def test_they_are_numbered_and_all_are_run() -> None:
    assert {path.stem for path in EXAMPLES} == EXPECTED.keys()
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "path",  # from training on they are slow: README's block from Python goes the same way, with quicker settings
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem > "02" else []) for path in EXAMPLES],
)
def test_it_runs(path: Path, folder: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, path], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in EXPECTED[path.stem]:
        assert words in done.stdout
