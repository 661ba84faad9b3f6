"""Own families, token mixers, heads and tasks: what may be registered, and how configurations refer to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vitrail
from vitrail.core.errors import CodeError, ConfigError
from vitrail.core.import_code import imported_code
from vitrail.models import FAMILIES, Family, create_model
from vitrail.tasks import TASKS, SegmentationTask, find_task
from vitrail.tasks.segmentation import SegmentationOptions

SMALL = {
    "embed_dims": (32, 32),
    "depths": (1, 1),
    "strides": (4, 2),
    "num_classes": 3,
    "image_size": 32,
}

MIXERS = """\
from __future__ import annotations
import vitrail
from torch import Tensor, nn

@vitrail.register
class Mean(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj(x.mean((2, 3), keepdim=True))

@vitrail.register(name="of tokens", layout="tokens", divisor=2)
def of_tokens(dim, *, head_dim):
    return nn.Linear(dim, dim, bias=head_dim == 32)

class Plain(Mean):
    pass

class Inner:
    class Mixer(Mean):
        pass

@vitrail.register(layout="channels_last")
class Reversed(Mean):
    def forward(self, x):
        return x.flip(1).permute(0, 3, 1, 2)

@vitrail.register
class Failing(Mean):
    def forward(self, x):
        return self.proj(x[:, :3])

@vitrail.register
class Demanding(Mean):
    def __init__(self, dim, heads):
        super().__init__(dim)

@vitrail.register
def nothing(dim):
    return None
"""

TWICE = """\
import vitrail
@vitrail.register(name="same")
def one(dim): ...
@vitrail.register(name="same")
def two(dim): ...
"""

FAMILY = """\
from dataclasses import dataclass
import torch, vitrail
from torch import nn
from vitrail.core.types import FeatureInfo
from vitrail.models import Backbone, BackboneConfig, Family
from vitrail.models.base import make_classifier

@dataclass(frozen=True, kw_only=True)
class Config(BackboneConfig):
    dim: int = 8
    act: object = "relu"

class Tiny(Backbone):
    def __init__(self, config):
        super().__init__(config)
        self.size_divisor = 4
        self.stem = nn.Conv2d(config.in_chans, config.dim, 4, 4)
        self.head = make_classifier(config.dim, config.num_classes)
        self.num_features = config.dim
        self.feature_info = (FeatureInfo(name="stem", channels=config.dim, stride=4),)

    def forward_stages(self, x):
        yield self.stem(x)

    def pool(self, x):
        return x.mean((2, 3))
"""


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_mixer_is_one_thing_in_whichever_way_it_is_given(own_code: Path) -> None:
    mixers = vitrail.import_code(write(own_code, "mixers.py", MIXERS))
    for given in ("Mean", mixers.Mean):
        model = create_model("poolformer_nano", token_mixer=given, **SMALL)
        assert model.config.token_mixer == "Mean"
        assert vitrail.TrainConfig(model_fields={"token_mixer": given}).model_fields == {"token_mixer": "Mean"}
    state = create_model("poolformer_nano", token_mixer="Mean", **SMALL).state_dict()
    model.load_state_dict(state)
    for given in ("mixers:Plain", mixers.Plain):
        model = create_model("poolformer_nano", token_mixer=given, **SMALL)
        assert model.config.token_mixer is mixers.Plain
        kept = vitrail.TrainConfig(model_fields={"token_mixer": [given, mixers.Mean]}).to_dict()["model_fields"]
        assert json.loads(json.dumps(kept)) == {"token_mixer": ["mixers:Plain", "Mean"]}
    model = create_model("poolformer_nano", token_mixer="of tokens", **SMALL)
    assert model(torch.zeros(1, 3, 48, 32)).shape == (1, 3)
    assert model.size_divisor == 16
    assert model.stages[0].blocks[0].token_mixer.mixer.bias is not None


@pytest.mark.usefixtures("no_shape_checks")
def test_what_is_wrong_with_a_mixer_is_told_with_its_name_and_shapes(own_code: Path) -> None:
    vitrail.import_code(write(own_code, "mixers.py", MIXERS))
    for name, told in {
        "Reversed": "'Reversed' turns a map of 2x32x8x8 (images, channels, rows, columns) into 2x8x32x8; it must keep",
        "Failing": "'Failing' fails on a map of 2x32x8x8: RuntimeError: .*mixers.py, line 33",
        "Demanding": "'Demanding' cannot be built for width 32: TypeError: .*'heads'",
        "nothing": "'nothing' gives a NoneType for width 32; it must be a module",
    }.items():
        pattern = told if ".*" in told else re.escape(told)
        with pytest.raises(ConfigError, match=pattern):
            create_model("poolformer_nano", token_mixer=name, **SMALL)
    with torch.device("meta"):
        create_model("poolformer_nano", token_mixer="Mean", **SMALL)


def top_level(dim: int) -> nn.Module:
    return nn.Identity()


def test_what_no_other_process_could_find_again_is_refused(own_code: Path) -> None:
    mixers = vitrail.import_code(write(own_code, "mixers.py", MIXERS))

    class Local(nn.Module):
        pass

    of_main = type("OfMain", (nn.Module,), {"__module__": "__main__"})
    for value, told in {
        Local: "Local, defined inside something else, which no other process can find again",
        mixers.Inner.Mixer: "defined inside something else",
        (lambda _: nn.Identity()): "a lambda",
        of_main: "put @vitrail.register above it",
        nn.Identity(): r"is an object \(Identity\)",
        Path("x"): "is a PosixPath, which a run cannot keep",
        json.loads: "which makes no part of a model",
    }.items():
        with pytest.raises(ConfigError, match=told):
            vitrail.TrainConfig(model_fields={"token_mixer": value})
    fields = {"a": np.float32(0.5), "b": nn.Identity, "c": top_level, "d": {"e": (1, None)}}
    kept = vitrail.TrainConfig(model_fields=fields).model_fields
    assert kept == {
        "a": 0.5,
        "b": "torch.nn.modules.linear:Identity",
        "c": f"{__name__}:top_level",
        "d": {"e": (1, None)},
    }
    assert __file__ in imported_code()


def test_nothing_is_imported_because_a_text_names_it(own_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(own_code, "hostile.py", "raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(own_code))
    for name in ("hostile:Mixer", "os:system", "torch:load", "subprocess:Popen", "vitrail.core.files:remove"):
        with pytest.raises(ConfigError, match="in a module that is not imported; pass its file: --import FILE"):
            create_model("poolformer_nano", token_mixer=name, **SMALL)
    text = MIXERS.replace("import vitrail\n", "import vitrail\nfrom os import system\n")
    vitrail.import_code(write(own_code, "mixers.py", text))
    for name in ("system", "nn", "Inner.Mixer", "__builtins__"):
        with pytest.raises((ConfigError, ValueError), match=r"no class or function|unknown token mixer"):
            create_model("poolformer_nano", token_mixer=f"mixers:{name}", **SMALL)


def test_names_are_taken_once(own_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(own_code, "mixers.py", MIXERS)
    vitrail.import_code(path)
    path.write_text(MIXERS + "\nVALUE = 1\n")
    vitrail.import_code(path)  # the same file again, as in a notebook
    for name, text, told in (
        ("second", MIXERS, "'Mean' is registered by .*mixers.py already"),
        ("third", MIXERS.replace("class Mean", "class pooling").replace("Mean", "pooling"), "one of Vitrail's own"),
        ("twice", TWICE, "'same' is registered twice in .*twice.py"),
        ("empty", "import vitrail\nvitrail.register(lambda dim: None)\n", "line 2: .* has no name of its own"),
        ("one", "import vitrail\nfrom torch import nn\nvitrail.register(nn.Identity())\n", "each block needs its own"),
        ("plain", "import vitrail\n@vitrail.register\nclass A: pass\n", "cannot be registered"),
        ("layout", "import vitrail\n@vitrail.register(layout='nchw')\ndef a(dim): ...\n", "layout='nchw' is unknown"),
        ("head", "import vitrail\n@vitrail.register(head_of='pose')\ndef a(): ...\n", "segmentation has. Register"),
        ("colon", "import vitrail\n@vitrail.register(name='a:b')\ndef a(dim): ...\n", "no usable name"),
    ):
        with pytest.raises(CodeError, match=told):
            vitrail.import_code(write(own_code, f"{name}.py", text))
    cell = "import vitrail\nfrom torch import nn\n@vitrail.register\nclass Cell(nn.Identity):\n  pass\n"
    for _ in range(2):
        exec(cell, {"__name__": "__main__"})


def test_a_family_is_a_model_like_any_other(own_code: Path) -> None:
    text = f"{FAMILY}\nvitrail.register(variants={{'tiny_a': Config(), 'tiny_b': Config(dim=16)}})(Tiny)\n"
    module = vitrail.import_code(write(own_code, "family.py", text))
    assert vitrail.list_models("tiny_*") == ["tiny_a", "tiny_b"]
    model = create_model("tiny_b", num_classes=4, image_size=32)
    assert (type(model), model(torch.zeros(1, 3, 32, 32)).shape) == (module.Tiny, (1, 4))
    assert create_model("tiny_a", act=nn.GELU).config.act is nn.GELU
    again = text.replace("'tiny_b': Config(dim=16)", "'tiny_c': Config(dim=32)")
    vitrail.import_code(write(own_code, "family.py", again))
    assert vitrail.list_models("tiny_*") == ["tiny_a", "tiny_c"]
    other = text.replace("class Tiny", "class Other").replace("(Tiny)", "(Other)")
    with pytest.raises(CodeError, match="variant 'tiny_a' of family 'Other' is one of family 'Tiny'; rename it"):
        vitrail.import_code(write(own_code, "other.py", other))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("vitrail.register(Tiny)", "needs variants, at least one: @vitrail.register"),
        ("vitrail.register(variants={'t': {'dim': 3}})(Tiny)", "variant 't' of family 'Tiny' is a dict; it must be"),
        ("vitrail.register(variants={'t': Config})(Tiny)", "is the class Config; it must be an object"),
        (
            "class C(Config):\n  x = 1\nvitrail.register(variants={'t': C()})(Tiny)",
            "C of family .* is no dataclass",
        ),
        ("vitrail.register(variants={'edgevit_xxs': Config()})(Tiny)", "is one of family 'edgevit'; rename it"),
        ("vitrail.register(name='vit', variants={'t': Config()})(Tiny)", "family 'vit' is one of Vitrail's own"),
        ("class A(Backbone): ...\nvitrail.register(variants={'t': Config()})(A)", "lacks the methods forward_stages"),
        ("vitrail.register(Family(name='x', backbone=Tiny, variants={}))", "family 'x' needs variants, at least one"),
    ],
)
def test_what_is_no_family_is_refused(own_code: Path, call: str, told: str) -> None:
    with pytest.raises(CodeError, match=told):
        vitrail.import_code(write(own_code, "family.py", f"{FAMILY}\n{call}\n"))
    assert "Tiny" not in FAMILIES


def test_a_family_object_says_its_paper(own_code: Path) -> None:
    text = f"{FAMILY}\nfrom vitrail.models import Family\n"
    text += "vitrail.register(Family(name='tiny', backbone=Tiny, variants={'tiny_a': Config()}, arxiv='0000.00000'))\n"
    vitrail.import_code(write(own_code, "family.py", text))
    assert FAMILIES["tiny"].paper == "arXiv:0000.00000"
    assert Family(name="x", backbone=FAMILIES["tiny"].backbone, variants={}).paper == ""


HEAD = """\
import vitrail
from torch import nn

@vitrail.register(head_of="segmentation")
class OneLevel(nn.Module):
    def __init__(self, channels, num_classes, width):
        super().__init__()
        self.classifier = nn.Conv2d(channels[0], num_classes + EXTRA, 1)

    def forward(self, maps):
        return self.classifier(maps[0])
"""


def test_a_head_is_an_option_of_its_task(own_code: Path) -> None:
    vitrail.import_code(write(own_code, "head.py", HEAD.replace("EXTRA", "0")))
    backbone = create_model("poolformer_nano", **(SMALL | {"num_classes": 0}))
    task = SegmentationTask(backbone, ("a", "b", "c"), SegmentationOptions(head="OneLevel"))
    assert task(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    with pytest.raises(ConfigError, match="choose semantic_fpn or upernet or OneLevel"):
        SegmentationOptions(head="deeplab")
    vitrail.import_code(write(own_code, "head.py", HEAD.replace("EXTRA", "1")))
    with pytest.raises(ConfigError, match="head 'OneLevel' gives 2x4x8x8 for 3 classes; it must give"):
        SegmentationTask(backbone, ("a", "b", "c"), SegmentationOptions(head="OneLevel"))


def test_a_task_is_registered_as_its_row(own_code: Path) -> None:
    text = """\
import vitrail
from dataclasses import replace
from vitrail.tasks import TASKS, ClassificationTask
class Twin(ClassificationTask):
    name = "twin"
vitrail.register(replace(TASKS["classification"], task=Twin))
"""
    vitrail.import_code(write(own_code, "task.py", text))
    assert find_task("twin").name == "twin"
    assert "twin" in TASKS
    with pytest.raises(CodeError, match="task 'pose' is one of Vitrail's own"):
        vitrail.import_code(write(own_code, "other_task.py", text.replace('"twin"', '"pose"')))
