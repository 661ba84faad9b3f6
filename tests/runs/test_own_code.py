"""A run of own code: what it remembers, that every verb works in a new process, and what is said elsewhere."""

from __future__ import annotations

import logging
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import vitrail
from vitrail.cli.main import main
from vitrail.compare import read_plan
from vitrail.core import import_code as importing, registered
from vitrail.core.errors import CodeError, RunError
from vitrail.core.files import read_json, write_json
from vitrail.layers import TOKEN_MIXERS
from vitrail.runs.load import load_task
from vitrail.runs.remembered_code import CodeEntry, missing_text
from vitrail.runs.run import Run

MIXERS = """\
from __future__ import annotations
import vitrail
from torch import nn

@vitrail.register
class Near(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x):
        return self.proj(x) - x

class Plain(Near):
    pass
"""

CONFIG = """\
import: own mixers.py
model: poolformer_nano
model_fields:
  token_mixer: [Near, "own mixers:Plain"]
  embed_dims: [32, 32]
  depths: [1, 1]
  strides: [4, 2]
image_size: 16
epochs: 1
warmup_epochs: 0
batch_size: 4
num_workers: 0
data: {path: PHOTOS, val_fraction: 0.5}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for label in ("dark", "light"):
        (folder / label).mkdir()
        for number in range(8):
            shade = number * 5 + (150 if label == "light" else 0)
            Image.new("RGB", (16, 16), (shade, shade, number)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def forget(own_code: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What a new process does not know."""

    def forget() -> None:
        registered._REGISTERED.clear()
        for name in list(importing._IMPORTED):
            sys.modules.pop(name, None)
        importing._IMPORTED.clear()
        TOKEN_MIXERS.pop("Near", None)
        monkeypatch.setenv(importing.VARIABLE, "[]")

    return forget


def test_every_verb_works_in_a_new_process_with_import(
    own_code: Path,
    photos: Path,
    tmp_path: Path,
    forget: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file, config, run = own_code / "own mixers.py", own_code / "config.yaml", Run(tmp_path / "run")
    file.write_text(MIXERS)
    config.write_text(CONFIG.replace("PHOTOS", str(photos)))
    assert main(["train", "--config", str(config), "--run", str(run.folder), "-q"]) == 0, capsys.readouterr().err
    entries = {entry.name: entry for entry in run.read().own_code}
    assert entries["Near"].kind == "token mixer"
    assert entries["own mixers:Plain"].kind == "object"
    assert {(one.file, one.sha256) for one in entries.values()} == {(str(file), importing.imported_hash("own mixers"))}
    assert (run.code / "own mixers.py").read_text() == MIXERS
    assert run.code / "own mixers.py" in run.artefacts()
    task = pickle.loads(pickle.dumps(load_task(run)))  # as processes that train beside this one get it
    expected = task(torch.ones(1, 3, 16, 16))

    forget()
    assert main(["export", str(run.folder)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "needs the token mixer 'Near' of own mixers.py, which is not imported; pass its path: --import" in told
    assert str(run.code / "own mixers.py") in told
    assert TOKEN_MIXERS.keys().isdisjoint({"Near"})
    assert main(["report", str(run.folder), "-q"]) in (0, 2)  # it reads results, and needs no code
    assert "own mixers" not in capsys.readouterr().err

    forget()
    picture = str(photos / "dark" / "1.png")
    words = ["--import", str(file), "predict", str(run.folder), picture, f"--import={file}", "--json"]
    assert main(words) == 0, capsys.readouterr().err
    torch.testing.assert_close(load_task(run)(torch.ones(1, 3, 16, 16)), expected)
    assert '"label"' in capsys.readouterr().out
    assert main(["train", "--config", str(config), "--import", str(file), "--print-config"]) == 0
    assert capsys.readouterr().out.startswith(f"import:\n- {file}\n")

    forget()
    file.write_text(MIXERS + "# changed\n")
    vitrail.import_code(file)
    with caplog.at_level(logging.WARNING, "vitrail"):
        load_task(run)
        load_task(run)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "was trained with another own mixers.py (sha256 " in line
    assert main(["train", "--config", str(config), "--run", str(run.folder), "--overwrite", "-q"]) == 0
    assert (run.code / "own mixers.py").read_text().endswith("# changed\n")
    moved = Run(shutil.move(run.folder, tmp_path / "moved"))
    assert load_task(moved)(torch.ones(1, 3, 16, 16)).shape == (1, 2)


@pytest.mark.slow
def test_quantize_export_and_bench_in_new_processes(
    own_code: Path, photos: Path, tmp_path: Path, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    file, config, run = own_code / "own mixers.py", own_code / "config.yaml", str(tmp_path / "run")
    file.write_text(MIXERS)
    config.write_text(CONFIG.replace("PHOTOS", str(photos)))
    for words in (
        ["train", "--config", str(config), "--run", run, "--num-workers", "1"],
        ["export", run, "--import", str(file)],
        ["quantize", run, "--import", str(file), "--calibration", "4"],
        ["bench", run, "--import", str(file), "--runtimes", "torch", "--min-seconds", "0", "--min-runs", "5"],
    ):
        forget()
        assert main([*words, "-q"]) == 0, capsys.readouterr().err
    (row, *_) = [row for row in Run(tmp_path / "run").bench_rows.read_text().splitlines() if '"torch"' in row]
    assert '"memory": null' not in row


def test_what_a_run_names_is_never_imported(own_code: Path, old_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    evil = own_code / "evil.py"
    evil.write_text("raise SystemExit('imported')\n")
    (old_run.folder / "code").mkdir()
    shutil.copy(evil, old_run.folder / "code")
    entry = {"kind": "token mixer", "name": "\x1b[2JMixer", "module": "evil", "file": str(evil), "sha256": "0"}
    values = read_json(old_run.description)
    write_json(old_run.description, values | {"own_code": [entry]})
    with pytest.raises(RunError, match=r"needs the token mixer '.\[2JMixer' of evil\.py") as caught:
        load_task(old_run)
    assert "\x1b" not in str(caught.value)
    for name in ("../evil", "/tmp/evil", ""):
        write_json(old_run.description, values | {"own_code": [entry | {"module": name}]})
        assert evil not in old_run.artefacts()
    write_json(old_run.description, values | {"own_code": [], "task": "juggling"})
    with pytest.raises(RunError, match="unknown task 'juggling'"):
        _ = old_run.read().kind
    write_json(old_run.description, values | {"task": "juggling", "own_code": [entry | {"kind": "task"}]})
    with pytest.raises(RunError, match=r"the run needs the task .* which is not imported"):
        _ = old_run.read().kind


def test_a_notebook_has_no_file() -> None:
    entry = CodeEntry(kind="token mixer", name="Near", module="__main__")
    assert entry.copy_name == ""
    assert missing_text(entry).endswith(
        "of a notebook, which is not imported; register it again, or put it into a file and pass --import FILE"
    )
    assert CodeEntry(kind="task", name="x", module="__main__", file="/a/train.py").copy_name == "train.py"


def test_a_comparison_names_the_code_beside_it(own_code: Path) -> None:
    (own_code / "own mixers.py").write_text(MIXERS)
    cells = "cells: [{name: a, model: poolformer_nano, fields: {token_mixer: Near}}, {name: b, model: edgevit_xxs}]"
    (own_code / "plan.yaml").write_text(f"import: [own mixers.py]\n{cells}\n")
    plan = read_plan(own_code / "plan.yaml")
    assert plan.config(plan.cells[0], 0).model_fields == {"token_mixer": "Near"}
    (own_code / "plan.yaml").write_text(f"import: [nothing.py]\n{cells}\n")
    with pytest.raises(CodeError, match=r"cannot import .*own/nothing\.py: No such file"):
        read_plan(own_code / "plan.yaml")
