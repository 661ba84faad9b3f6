"""Every option of every verb: its line in the help, its choices, its default, and what a wrong value is answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from torchvision.transforms import InterpolationMode

from vitrail.cli.main import VERBS, build_app, main
from vitrail.core.config import typed
from vitrail.core.errors import VitrailError
from vitrail.core.types import Interpolation
from vitrail.quantization.config import PRESETS, PresetName
from vitrail.runtimes import FORMATS, MEASURED, FormatName, RuntimeName
from vitrail.tasks.create import TASKS

Capture = pytest.CaptureFixture[str]

DEPENDENT = re.compile(r"(of|that|these|those|this|it|its|which|as far)\b", re.IGNORECASE)
"""First words of a line that leans on the line above it."""

CLOSED = {
    "train": ("--precision", "--accelerator", "--keep", "--bad-annotations"),
    "pretrain": ("--objective",),
    "evaluate": ("--interpolation", "--groups"),
    "explain": ("--format",),
    "export": ("--format",),
    "bench": ("--runtimes", "--device"),
    "quantize": (
        "--preset",
        "--allocation",
        "--observer",
        "--smoothing",
        "--rounding",
        "--correction",
        "--target-cpu",
        "--reconstruction",
        "--softmax",
        "--runtime",
    ),
}

CONFIGURED = ("run", "quantize", "bench", "evaluate")
"""Verbs whose checks ``--print-config`` reaches without doing anything; train, pretrain and demo have run's options."""

FREE = {"--split-seed", "--calibration-seed", "--robustness-seed", "--seed", "--bench-seed", "--devices", "--cores"}
"""Numbers that no configuration refuses: seeds, and what depends on the machine or is checked where it is used."""

WRONG = ("-1", "0", "2", "1000000", "-1 -1")


@cache
def arguments(verb: str) -> tuple[Any, ...]:
    """What the command line knows of the verb's arguments, those of the common output aside."""
    found = build_app(verb)[verb].assemble_argument_collection(parse_docstring=True)
    return tuple(one for one in found if one.show and not {"--json", "--quiet", "--debug", "--import"} & {*one.names})


def options(verb: str) -> Iterator[Any]:
    return (one for one in arguments(verb) if one.names[0].startswith("--"))


def refusal(words: list[str], capsys: Capture) -> str | None:
    """The one line that a wrong value is answered, by the name of its option; None if it is accepted."""
    capsys.readouterr()
    if main(words) == 0:
        return None
    told = capsys.readouterr()
    option = next(word for word in reversed(words) if re.match("--[a-z]", word)).partition("=")[0].replace("_", "-")
    assert told.out == ""
    assert told.err.startswith("vitrail: error: ")
    assert told.err.count("\n") == 1, told.err
    assert len(told.err) < 300, told.err
    assert re.search(rf"{option}[ :.]", told.err), told.err
    assert "{" not in told.err, told.err
    return told.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_line_of_the_help_stands_alone(verb: str) -> None:
    for one in arguments(verb):
        text = one.parameter.help or ""
        assert text[:1].isupper(), f"{one.names}: {text!r}"
        assert not DEPENDENT.match(text), f"{one.names}: {text!r}"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_has_no_default_that_says_nothing(verb: str, capsys: Capture) -> None:
    assert main([verb, "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert not re.search(r"\[default: (None|\(\)|\{\}|)\]", page)
    for one in options(verb):
        silent = one.field_info.default is None and "--config" not in one.names
        assert not silent or "Default: " in " ".join(one.parameter.help.split()), (
            f"{one.names} does not say what happens by default"
        )


@pytest.mark.parametrize("verb", CLOSED)
def test_closed_sets_of_values_are_listed(verb: str) -> None:
    listed = {name: one.get_choices() for one in options(verb) for name in one.names}
    assert all(listed[name] for name in CLOSED[verb]), listed


@pytest.mark.parametrize(("literal", "table"), [(RuntimeName, MEASURED), (FormatName, FORMATS), (PresetName, PRESETS)])
def test_choices_are_those_of_the_table(literal: Any, table: dict[str, Any]) -> None:
    assert {*get_args(literal)} == {*table}


def test_interpolations_are_torchvisions() -> None:
    assert {*get_args(Interpolation)} <= {mode.value for mode in InterpolationMode}


def test_train_shows_first_what_people_need() -> None:
    first = [one for one in options("train") if [group.name for group in one.parameter.group] == ["Options"]]
    assert len(first) <= 15
    assert {"--data", "--model", "--run", "--epochs", "--weights"} <= {name for one in first for name in one.names}


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=pytest.mark.slow if verb in ("run", "demo") else ()) for verb in CONFIGURED]
)
def test_a_wrong_value_is_answered_by_its_option(verb: str, capsys: Capture) -> None:
    start = [verb, *(["runs/none"] if verb in ("quantize", "bench") else []), "--print-config"]
    for one in options(verb):
        option = one.names[0]
        if one.get_choices():
            line = refusal([*start, option, "nonsense"], capsys)
            assert all(choice in str(line) for choice in one.get_choices()), line
        elif re.search(r"\b(int|float)\b", str(one.hint)) and option not in FREE:
            values = WRONG if "tuple" in str(one.hint) else WRONG[:-1]
            refused = any(refusal([*start, option, *value.split()], capsys) for value in values)
            assert refused, f"{option} takes any number"


@pytest.mark.parametrize(
    "line",
    [
        "quantize R --bits=9",
        "evaluate R --robustness --num-images 0",
        "evaluate --interpolation box",
        "recommend R --max-size-mb -1",
        "recommend R --min_accuracy 2",
        "export R --num-images 1",
        "export R --format onxx",
        "explain R x --format gif",
        "pretrain --objective mip",
        "bench R --port 99999",
        "bench R --host somewhere",
        "train --crop-fraction 1.5",
        "train --epochs 1.5",
    ],
)
def test_wrong_values_elsewhere(line: str, capsys: Capture) -> None:
    assert refusal(line.split(), capsys)


@pytest.mark.parametrize("words", ["--option.head unet", "--option.width 0", "--option.auxiliary -1"])
def test_options_of_a_task_are_named_as_typed(words: str, tmp_path: Path, capsys: Capture) -> None:
    line = ["train", "--task", "segmentation", "--run", str(tmp_path / "run"), *words.split()]
    assert main(line) == 2
    assert f"vitrail: error: {words} is" in capsys.readouterr().err


def test_two_options_that_exclude_each_other_are_both_named(capsys: Capture) -> None:
    words = ["quantize", "R", "--max-latency-ms", "4", "--max-size-mb", "3"]
    assert "--max-latency-ms 4, --max-size-mb 3: give one budget" in str(refusal(words, capsys))


def test_what_a_file_says_keeps_its_name(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("data:\n  val_fraction: 2\n")
    assert main(["train", "--config", str(file)]) == 2
    assert "error: data.val_fraction=2.0 is outside (0, 1]" in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_numbers_of_a_task_are_checked_one_by_one(task: str) -> None:
    kind = TASKS[task].options
    for name, default in vars(kind()).items():
        checked = isinstance(default, int | float) and not isinstance(default, bool)
        if checked and (task, name) != ("aesthetics", "threshold"):  # scales may begin below 0
            with pytest.raises(VitrailError) as caught:
                typed(kind, {name: -1})
            assert name in caught.value.values


def test_printed_configuration_shows_what_the_preset_chooses(capsys: Capture) -> None:
    assert main(["quantize", "R", "--preset", "mptq", "--rounding", "gptq", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "  softmax: null  # two_scale\n" in printed
    assert "  rounding: gptq\n" in printed
    assert main(["train", "--model", "edgevit_xxs", "--print-config"]) == 0
    assert "image_size: null  # 224 x 224\n" in capsys.readouterr().out
