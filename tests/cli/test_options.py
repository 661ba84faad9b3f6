"""One configuration: defaults, then the file, then the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
import yaml
from cyclopts import App, CycloptsError

from vitrail.cli.options import configured, effective_config, to_yaml
from vitrail.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How images change.

    Attributes:
        scale: smallest and largest share of the image that a crop covers.
        flip: mirror images.
        seed: of the draws.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    flip: bool = True
    seed: int = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to work.

    Attributes:
        model: which one.
        epochs, seed: two numbers.
        learning_rate: of the optimiser.
    """

    model: str = "vit"
    epochs: int = 3
    seed: int = 0
    learning_rate: float = 1e-3
    precision: Literal["32", "bf16"] = "32"
    folder: Path | None = None
    size: int | tuple[int, int] | None = None
    means: tuple[float, ...] | None = None
    runtimes: tuple[str, ...] = ("a", "b")
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"epochs={self.epochs} is below 1; give a positive number")


def run(words: list[str]) -> tuple[Settings, bool]:
    seen: list[tuple[Settings, bool]] = []

    @configured(Settings(), names={"augment.scale": "crop"}, groups={"Augmentation": ("augment",)})
    def verb(settings: Settings, /, *, resume: bool = False) -> None:
        seen.append((settings, resume))

    app = App(result_action="return_value")
    app.command(verb, name="verb")
    app(["verb", *words], exit_on_error=False, print_error=False)
    return seen[0] if seen else (Settings(), False)


def test_options_are_the_fields_of_the_configuration() -> None:
    words = "--epochs 7 --learning-rate 0.1 --crop 0.2 0.9 --no-flip --augment-seed 5 --runtimes x y z --resume"
    settings, resume = run(words.split())
    assert resume
    assert settings == Settings(
        epochs=7, learning_rate=0.1, runtimes=("x", "y", "z"), augment=Augment(scale=(0.2, 0.9), flip=False, seed=5)
    )


def test_lists_take_all_words_that_follow() -> None:
    assert run(["--means", "0.1", "0.2", "0.3"])[0].means == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(("words", "size"), [("48", 48), ("48 64", (48, 64))])
def test_size_is_a_number_or_a_pair(words: str, size: object) -> None:
    assert run(["--size", *words.split()])[0].size == size


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 5\nlearning_rate: 1e-2\naugment:\n  seed: 9\n")
    settings, _ = run(["--config", str(file), "--epochs", "6"])
    assert settings == Settings(epochs=6, learning_rate=0.01, augment=Augment(seed=9))


def test_an_option_with_the_default_value_also_wins(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 5\n")
    assert run(["--config", str(file), "--epochs", "3"])[0].epochs == 3


def test_printed_configuration_round_trips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--epochs", "7", "--crop", "0.1", "0.3", "--folder", "somewhere", "--no-flip"]
    run([*words, "--print-config"])
    printed = capsys.readouterr().out
    file = tmp_path / "settings.yaml"
    file.write_text(printed)
    assert yaml.safe_load(printed)["augment"]["flip"] is False
    assert run(["--config", str(file)])[0] == run(words)[0]
    run(["--config", str(file), "--print-config"])
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 5", "unknown key 'epoch' in FILE; did you mean 'epochs'?"),
        ("lr: 5", "unknown key 'lr' in FILE; did you mean 'learning_rate'?"),
        ("augment:\n  flipp: true", "unknown key 'augment.flipp' in FILE; did you mean 'augment.flip'?"),
        ("scale: [0, 1]", "unknown key 'scale' in FILE; did you mean 'augment.scale'?"),
        ("augment: 3", "key 'augment' in FILE is 3; it needs keys of its own: scale, flip, seed"),
        ("epochs: ten", "epochs='ten' is not allowed: input should be a valid integer"),
        ("augment:\n  seed: [1]", "augment.seed=[1] is not allowed: input should be a valid integer"),
        ("epochs: 0", "epochs=0 is below 1; give a positive number"),
        ("precision: half", "precision='half' is not allowed; choose 32 or bf16"),
        ("- epochs", "configuration FILE holds no 'key: value' lines"),
        ("epochs: [", "configuration FILE is not YAML"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        effective_config(Settings(), file, {})
    assert words.replace("FILE", str(file)) in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read configuration .*nowhere\.yaml"):
        effective_config(Settings(), tmp_path / "nowhere.yaml", {})


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("# nothing\n")
    assert effective_config(Settings(), file, {}) == Settings()


def test_yaml_has_only_plain_values() -> None:
    text = to_yaml(replace(Settings(), folder=Path("a/b")))
    assert "!!python" not in text
    assert yaml.safe_load(text)["folder"] == "a/b"


@pytest.mark.parametrize("word", ["1.5", "2.0", "many", ""])
def test_whole_numbers_are_not_rounded(word: str) -> None:
    with pytest.raises(CycloptsError, match="not a whole number"):
        run(["--epochs", word])
