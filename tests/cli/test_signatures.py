"""The table of what every verb takes is the verbs' own, so that help and mistakes need no PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict

import pytest

from vitrail.cli.main import VERBS, build_app, main
from vitrail.cli.signatures import TABLE, option_names, signatures, stand_in, type_of
from vitrail.cli.suggestions import FOLLOWS, VERBS_MEANT, suggest_option, suggest_verb
from vitrail.cli.words import OLD_OPTIONS
from vitrail.cli.write_signatures import describe_verb, table_text, type_text
from vitrail.core.synonyms import MEANT

Capture = pytest.CaptureFixture[str]

QUICK = [
    *["--help", "--version", "tran", "fit", "train --help", "bench -h", "train --lr 3", "predict", "train photos/"],
    *["quantize R --imgsz 3", "predict R x --conf 1", "train --epochs ten", "train --epochs", "explain --format gif"],
]

SAID_BY_OTHERS = {
    "train": {
        "lr": "--learning-rate",
        "bs": "--batch-size",
        "batch": "--batch-size",
        "imgsz": "--image-size",
        "img-size": "--image-size",
        "workers": "--num-workers",
        "wd": "--weight-decay",
        "ckpt": "--weights",
        "pretrained": "--weights",
        "device": "--devices",
        "half": "--precision",
        "amp": "--precision",
        "output_dir": "--run",
        "data-dir": "--data",
        "arch": "--model",
        "batchsize": "--batch-size",
        "j": "--num-workers",
    },
    "quantize": {
        "num-samples": "--calibration",
        "w-bits": "--bits",
        "calib": "--calibration",
        "abits": "--activation-bits",
    },
    "predict": {"batch": "--batch-size", "o": "--out", "topk": "--top-k"},
    "bench": {"num-threads": "--threads", "iters": "--min-runs", "provider": "--runtimes", "warmup": "--warmup-runs"},
    "export": {"include": "--format", "dynamic": "--dynamic-size"},
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_table_is_that_of_the_verbs(verb: str) -> None:
    fresh = json.loads(table_text({verb: describe_verb(verb)}))[verb]
    assert signatures().get(verb) == fresh, "renew it with: python -m vitrail.cli.write_signatures"


def test_the_table_is_written_one_parameter_a_line() -> None:
    assert TABLE.read_text(encoding="utf-8") == table_text(signatures())


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_the_table_is_that_of_the_verb(verb: str, capsys: Capture) -> None:
    pages = []
    for command in (None, stand_in(verb)):
        build_app(verb, command)([verb, "--help"])
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    "text", ["int", "str | None", "tuple[int, ...] | None", "dict[str, str | int]", "Literal['a', 'b'] | None"]
)
def test_types_are_read_as_they_are_written(text: str) -> None:
    assert type_text(type_of(text)) == text


def test_help_and_mistakes_start_without_pytorch() -> None:
    code = (
        "import sys; from vitrail.cli.main import main\n"
        "heavy = ('torch', 'numpy')\n"
        f"for line in {QUICK!r}:\n"
        " print(main(line.split()), *(name in sys.modules for name in heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    found = [line for line in done.stderr.splitlines() if line[:1].isdigit()]
    asked = [bool({"--help", "-h", "--version"} & {*line.split()}) for line in QUICK]
    assert found == [f"{0 if help else 2} False False" for help in asked], done.stderr


@pytest.mark.parametrize(
    ("verb", "word", "option"), [(v, w, o) for v, pairs in SAID_BY_OTHERS.items() for w, o in pairs.items()]
)
def test_words_of_other_tools_are_understood(verb: str, word: str, option: str, capsys: Capture) -> None:
    assert main([verb, *(["R"] if verb != "train" else []), f"--{word}", "3"]) == 2
    line = capsys.readouterr().err
    assert f"unknown option --{word}; did you mean " in line
    assert option in line.partition("did you mean")[2].replace("?", " ").split()


@pytest.mark.parametrize("word", ["num-classes", "opset", "optimizer", "iou", "replace-head"])
def test_what_needs_no_option_is_explained(word: str, capsys: Capture) -> None:
    assert main(["train", f"--{word}=3"]) == 2
    reason = next(text for words, text in FOLLOWS.items() if word in words.split())
    assert capsys.readouterr().err == f"vitrail: error: unknown option --{word}; {reason}\n"


def test_an_option_of_other_verbs_is_told(capsys: Capture) -> None:
    assert main(["quantize", "R", "--epochs", "3"]) == 2
    assert (
        "unknown option --epochs; --epochs is an option of demo, run, pretrain, train, tune;" in capsys.readouterr().err
    )
    assert main(["quantize", "R", "--xyzzy"]) == 2
    assert "unknown option --xyzzy; 'vitrail quantize --help' lists" in capsys.readouterr().err


def test_every_suggestion_exists() -> None:
    options = {verb: option_names(verb) for verb in VERBS}
    everything = {name for names in options.values() for name in names}
    assert not {f"--{name}" for name in MEANT} - everything - {"--min-confidence", "--max-detections"}
    assert not {*VERBS_MEANT} - {*VERBS}
    for verb, own in options.items():
        for word in (word for words in MEANT.values() for word in words.split()):
            told = suggest_option(f"--{word}", verb, options)
            if told.startswith("did you mean "):
                assert {*told.removeprefix("did you mean ").rstrip("?").split(" or ")} <= {*own}
    for verb, words in VERBS_MEANT.items():
        assert all(suggest_verb(word, VERBS) == f"did you mean {verb}?" for word in words.split())


def test_one_setting_has_one_name_in_all_verbs() -> None:
    """The description of an option is that of the setting."""
    names: dict[str, set[str]] = defaultdict(set)
    for verb, entry in signatures().items():
        for one in entry["parameters"]:
            name = one["names"][0]
            is_prefixed = name.startswith("--bench-") and name.replace("bench-", "") in option_names(verb)
            if name.startswith("--") and not is_prefixed:  # two settings of a verb cannot have one name
                names[one["help"]].add(name)
    assert not {text: found for text, found in names.items() if len(found) > 1}


def test_no_name_means_two_options_of_a_verb() -> None:
    for verb in VERBS:
        names = option_names(verb)
        assert len(names) == len(set(names))


@pytest.mark.parametrize(("old", "verb"), [(old, verb) for old, (_, verbs) in OLD_OPTIONS.items() for verb in verbs])
def test_earlier_names_are_taken_with_a_note(old: str, verb: str, capsys: Capture) -> None:
    new = OLD_OPTIONS[old][0]
    assert new in option_names(verb)
    words = [verb, *(["R"] if verb in ("quantize", "pareto") else []), f"{old}=1", "--nonsense"]
    assert main(words) == 2
    note, error = capsys.readouterr().err.splitlines()
    assert note == f"vitrail: note: {old} is called {new} in every verb"
    assert "unknown option --nonsense" in error
    assert main([*words, "--quiet"]) == 2
    assert "note" not in capsys.readouterr().err


def test_a_missing_word_is_told_with_its_meaning(capsys: Capture) -> None:
    for words, message in (
        (["predict"], "RUN is missing (run folder); 'vitrail predict --help' has examples"),
        (["train", "--epochs"], "--epochs needs a value (number of passes over the training images)"),
        (["train", "my photos"], "'my photos' belongs to no option; for images write --data 'my photos'"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
