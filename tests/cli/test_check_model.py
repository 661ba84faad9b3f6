"""``vitrail check-model``: what it says of a model that keeps its promises, and of one that breaks one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitrail.cli.main import main
from vitrail.contract import CHECKS, check_subject, find_subject
from vitrail.core.import_code import import_code

FAMILY = """\
from dataclasses import dataclass
import vitrail
from torch import nn
from vitrail.core.types import FeatureInfo
from vitrail.models import Backbone, BackboneConfig
from vitrail.models.base import make_classifier

@dataclass(frozen=True, kw_only=True)
class Config(BackboneConfig):
    image_size: tuple = (16, 16)
    dim: int = 16

@vitrail.register(name="toy", variants={"toy_b": Config(dim=32), "toy_a": Config()})
class Toy(Backbone):
    def __init__(self, config):
        super().__init__(config)
        self.size_divisor = 4
        self.stem = nn.Conv2d(config.in_chans, config.dim, 4, 4)
        self.blocks = nn.Sequential(nn.Conv2d(config.dim, config.dim, 1), nn.GELU())
        self.head = make_classifier(config.dim, config.num_classes)
        self.num_features = config.dim
        self.feature_info = (FeatureInfo(name="blocks", channels=config.dim, stride=4),)

    def forward_stages(self, x):
        yield self.blocks(self.stem(x))

    def pool(self, x):
        return x.mean((2, 3))
"""

BROKEN = {
    "feature_info is true to the shapes": ("stride=4", "stride=8", "level 'blocks' as a map is 2x16x4x4, not 2x16x2x2"),
    "names of parameters are true": (
        "    def pool",
        "    def no_weight_decay(self):\n        return {'pos_embed'}\n\n    def pool",
        "no_weight_decay names 'pos_embed', and there is no such parameter",
    ),
    "the classifier can be changed": (
        "self.head = make_classifier(config.dim, config.num_classes)",
        "self.head = nn.Linear(config.dim, config.num_classes or 3)",
        "num_classes=0 is 2x3, not 2x16",
    ),
    "images do not mix": ("x.mean((2, 3))", "x.mean((2, 3)) - x.mean((0, 2, 3))", "alone against three together"),
    "training lowers the loss": ("x.mean((2, 3))", "x.mean((2, 3)).detach()", "stem.weight, .* no gradient arrives"),
    "torch.export agrees": (
        "return x.mean((2, 3))",
        "return x.mean((2, 3)) * (1 if float(x.sum()) > 0 else -1)",
        "family.py, line",
    ),
}


def write(folder: Path, text: str) -> Path:
    (folder / "family.py").write_text(text)
    return folder / "family.py"


def test_a_family_that_keeps_its_promises(own_code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(own_code, FAMILY)
    assert main(["check-model", "toy", "--import", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS)
    assert lines[0] == "ok       feature_info is true to the shapes (toy_a, toy_b)"
    assert lines[-1] == "skipped  torch.compile takes it as one graph (toy_a: slow; pass --compile)"
    assert {line.split()[0] for line in lines} == {"ok", "skipped"}


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_one_line(own_code: Path, name: str) -> None:
    before, after, told = BROKEN[name]
    assert before in FAMILY
    import_code(write(own_code, FAMILY.replace(before, after)))
    subject = find_subject("toy")
    (result,) = check_subject(subject, checks=[check for check in CHECKS if check.name == name])
    assert result.result == "failed"
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(result.reason)


def test_the_exit_status_and_json_tell_it(
    own_code: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitrail.contract.checks.check_subject.__kwdefaults__", {"slow": False, "checks": CHECKS[:2]})
    file = write(own_code, FAMILY.replace("stride=4", "stride=8"))
    assert main(["check-model", "toy_b", "--json", f"--import={file}"]) == 2
    told = capsys.readouterr()
    results = json.loads(told.out)["checks"]
    assert [one["result"] for one in results] == ["failed", "ok"]
    assert told.err == "vitrail: error: 1 of 2 checks of toy_b failed: feature_info is true to the shapes\n"
    assert main(["check-model", "toy_q"]) == 2
    assert "there is no family, variant or token mixer 'toy_q'; did you mean toy_b or toy_a?" in capsys.readouterr().err


def test_a_token_mixer_is_checked_inside_a_small_model() -> None:
    subject = find_subject("pooling")
    assert (subject.variants, subject.fields) == (("poolformer_nano",), {"token_mixer": "pooling"})
