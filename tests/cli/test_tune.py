"""``vitrail tune`` on the command line."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from docs.blocks import code_blocks
from PIL import Image
from pretended_training import Pretended, refusing

from vitrail.cli.main import main
from vitrail.core import extras
from vitrail.tuning import search

Capture = pytest.CaptureFixture[str]
FIXED = ["--model", "edgevit_nano_stride2", "--image-size", "16", "--num-workers", "0", "--epochs", "1"]
VARY = ["--vary", "learning_rate=1e-4:1e-2:log"]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    found = Pretended()
    monkeypatch.setattr(search, "train", found)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of photographs in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    for channel, name in enumerate(("red", "green")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(8):
            pixels = np.full((16, 16, 3), index, dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path


def test_the_page_s_command_works(
    place: Path, pretended: Pretended, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # the notes beside the trials stay on one line
    pretended.score = lambda config: 0.5 + (config.learning_rate or 0)
    (block,) = [block for block in code_blocks("docs/tuning.md", "sh") if block.note == "run"]
    assert main([*shlex.split(block.code)[1:], *FIXED]) == 0
    told = capsys.readouterr()
    assert "trial 12/12  learning rate " in told.err
    for text in ("the recipe's own values (scratch)", "is optimistic", "runs/tune/tune.html"):
        assert text in told.out
    assert "Next: vitrail train --config runs/tune/best.yaml --run RUN" in told.out
    assert "PED-ANOVA" in (place / "runs/tune/tune.html").read_text()
    assert main(["train", "--config", "runs/tune/best.yaml", "--print-config"]) == 0


def test_the_default_space_and_json(place: Path, pretended: Pretended, capsys: Capture) -> None:
    assert main(["tune", "--data", "photos", "--trials", "2", *FIXED, "--run", "my tüne", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["space"]) >= {"learning_rate", "weight_decay", "augment.mixup_alpha"}
    assert result["page"] == "my tüne/tune.html"
    assert [one["number"] for one in result["trials"]] == [1, 2]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--trials", "0"], "0 trials are not allowed; give 1 to 10,000"),
        (["--trials", "1.5"], "is not a whole number"),
        (["--vary", "learning_rate=5"], "nothing varies"),
        (["--vary", "lr=1:2"], "did you mean learning_rate"),
        (["--minutes", "0"], "--minutes 0 is not allowed"),
        (["--recipe", "probe"], "starts from weights that know images"),
        (["--space", "none.yaml"], "cannot read space none.yaml"),
        (["--devices", "2"], "--devices 2 trains each trial on one device"),
        (["--data", "nowhere"], "nowhere"),
        (["--resume", "--overwrite"], "contradict each other"),
    ],
)
def test_mistakes_are_one_line(more: list[str], told: str, place: Path, pretended: Pretended, capsys: Capture) -> None:
    usual = [*([] if "--data" in more else ["--data", "photos"]), *([] if "--vary" in more else VARY)]
    words = ["tune", *FIXED, *usual, *more, "--quiet"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not pretended.trained


def test_all_failed_and_ctrl_c(place: Path, pretended: Pretended, capsys: Capture) -> None:
    words = ["tune", "--data", "photos", *FIXED, *VARY, "--quiet"]
    pretended.score = refusing(lambda _: True)
    assert main(words) == 2
    assert (
        "all 3 trials failed, the first because: the loss became nan; its log is runs/tune/" in capsys.readouterr().err
    )

    def stopped(_: object) -> float:
        raise KeyboardInterrupt

    pretended.score = stopped
    assert main([*words, "--overwrite"]) == 130
    assert "interrupted; continue with: vitrail tune --data photos" in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(
    place: Path, pretended: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def absent(package: str) -> str:
        raise extras.PackageNotFoundError(package)

    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr(extras, "version", absent)
    assert main(["tune", "--data", "photos", *FIXED]) == 2
    assert "optuna is not installed; install it with: pip install 'vitrail[tune]'" in capsys.readouterr().err
