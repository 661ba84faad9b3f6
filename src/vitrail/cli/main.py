"""The ``vitrail`` command: finds the verb, and turns errors into one line and an exit status.

Exit statuses: 0 done, 2 an error that the user can mend, 130 interrupted, 1 a bug in Vitrail.
Nothing here imports PyTorch: a verb's module is imported only when that verb is asked for.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownOptionError,
    UnusedCliTokensError,
)

from vitrail import __version__
from vitrail.cli.signatures import option_names, stand_in, unknown_option
from vitrail.cli.suggestions import suggest_verb
from vitrail.cli.words import MAIN, default_words, option_name, renamed, typed_words
from vitrail.core.errors import VitrailError
from vitrail.core.faults import Fault, find_fault
from vitrail.core.import_code import import_code
from vitrail.core.paths import user_path

VERBS = {
    "demo": "See the whole way on the embedded sample, in minutes on a laptop",
    "run": "Go the whole way on your own folder of images",
    "check": "Look through a folder of images before anything is trained on it",
    "models": "List the models, show the card of one, or name models for your images and limits",
    "check-model": "Check that a family or token mixer of your own keeps the contract",
    "probe": "Compare frozen backbones on your images in a minute, before training",
    "pretrain": "Train a backbone on images without labels",
    "train": "Train a model on a folder of images",
    "tune": "Search for the settings of a training that suit your images",
    "evaluate": "Measure the accuracy of a run or of a weights file",
    "trust": "Fit how far a model's answers can be trusted: probabilities, sets of classes, unusual images",
    "drift": "Tell whether new images differ from those that a model was validated on",
    "predict": "Classify files, folders, or paths from standard input",
    "compare": "Train several models under one recipe and compare them",
    "explain": "Show what a model looks at, and what its features are like",
    "quantize": "Turn a run's model into integers of 8 bits or fewer",
    "export": "Write a run's model as verified files: ONNX, OpenVINO, ExecuTorch, LiteRT, ...",
    "bench": "Measure latency, memory and energy of runs' files in every runtime",
    "pareto": "Show accuracy over latency, energy and size, of several runs",
    "recommend": "Name the best measured file of your runs that keeps to your limits, and say why",
    "report": "Write a run's HTML report",
}

IMPORT = "--import"
"""Option of every verb that names own code."""

RESUMABLE = ("pretrain", "train", "tune", "run", "demo")

EPILOGUE = "`vitrail VERB --help` explains a verb, with examples. Start with: `vitrail demo`"


def build_app(verb: str | None = None, command: Callable[..., Any] | None = None) -> App:
    """The application. Every verb but the one asked for is listed by its summary alone, without importing it.

    Args:
        verb: the verb that is asked for.
        command: what stands for the verb. Default: the verb itself, which is imported when it is called.
    """
    app = App(
        name="vitrail",
        help="From a folder of images to a vision transformer that is trained, quantised, exported and measured.",
        help_epilogue=EPILOGUE if verb is None else None,
        version=__version__,
        help_format="markdown",
        default_parameter=Parameter(show_default=default_words),
        group_parameters=MAIN,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for name, summary in VERBS.items():
        order, place = list(VERBS).index(name), _place_of(name)
        if name == verb:
            app.command(command or place, name=name, sort_key=order)
        else:
            app.command(place, name=name, help=summary, sort_key=order)
    app.register_install_completion_command(help="Install tab completion for your shell", sort_key=len(VERBS))
    return app


def _place_of(verb: str) -> str:
    """Module and function of a verb: ``check_model`` in ``vitrail.cli.check_model`` for ``check-model``."""
    name = verb.replace("-", "_")
    return f"vitrail.cli.{name}:{name}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (that of the process by default) and return the exit status."""
    _use_utf8()
    words = _after_verb([_at_home(word) for word in (sys.argv[1:] if argv is None else argv)])
    verb = words[0] if words and words[0] in VERBS else None
    debug = "--debug" in words
    if verb is None and words and not words[0].startswith("-"):
        return _fail(f"error: unknown verb '{words[0]}'; {suggest_verb(words[0], VERBS)}", 2, debug)
    words = _with_present_names(verb, words)
    try:
        if verb is None or build_app(verb, stand_in(verb))(words, print_error=False, exit_on_error=False):
            for code in _imports(words) if verb is not None else ():
                import_code(code)
            build_app(verb)(words, print_error=False, exit_on_error=False)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        return _fail(_interrupted(verb, words), 130, debug)
    except SystemExit as leaving:
        # Lightning turns Ctrl-C into an exit of its own.
        if any(isinstance(link, KeyboardInterrupt) for link in _chain(leaving)):
            return _fail(_interrupted(verb, words), 130, debug)
        if any(isinstance(link, BrokenPipeError) for link in _chain(leaving)):
            return 0  # rich turns a reader that has left into an exit of its own
        return leaving.code if isinstance(leaving.code, int) else 0
    except BrokenPipeError:
        # The reader (head, less) has left: nobody to tell. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (VitrailError, CycloptsError) as error:
        if any(isinstance(link, KeyboardInterrupt | SystemExit) for link in _chain(error)):  # Ctrl-C, SIGTERM
            return _fail(_interrupted(verb, words), 130, debug)
        return _fail(f"error: {_told(error, verb, words)}", 2, debug)
    except Exception as error:  # noqa: BLE001 (whatever it is, the user gets one line)
        return _fail(*_unexpected(error, verb, words), debug)


def _use_utf8() -> None:
    """Files and pipes get UTF-8 whatever the system's encoding is, and no name is too strange to be printed."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            errors = "surrogateescape" if stream is sys.stdin else "backslashreplace"
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors=errors)


def _at_home(word: str) -> str:
    """``~/x`` and ``--run=~/x`` with the home folder; shells leave the second as it is."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + str(user_path(value)) if value.startswith("~") else word


def _after_verb(words: list[str]) -> list[str]:
    """The words with what is imported behind the verb; ``vitrail --import FILE train`` is as good."""
    count = 0
    while count < len(words) and _is_import(words[count]):
        count += 1 if "=" in words[count] else 2
    if count < len(words) and words[count] in VERBS:
        return [words[count], *words[:count], *words[count + 1 :]]
    return words


def _imports(words: list[str]) -> list[str]:
    """The files and modules of own code: they are imported before the verb, whose configuration may name them."""
    options = words[: words.index("--")] if "--" in words else words
    following = zip(options, [*options[1:], ""], strict=True)
    return [value if "=" not in word else word.partition("=")[2] for word, value in following if _is_import(word)]


def _is_import(word: str) -> bool:
    return word.partition("=")[0] == IMPORT


def _with_present_names(verb: str | None, words: list[str]) -> list[str]:
    """The words with the present names of options that were typed by earlier ones, which a note says."""
    present = []
    for word in words:
        name = None if verb is None or "--" in present else renamed(verb, word)
        if name is not None and not {"--quiet", "-q"} & {*words}:
            now, before = (text.partition("=")[0] for text in (name, word))
            print(f"vitrail: note: {before} is called {now} in every verb", file=sys.stderr)
        present.append(word if name is None else name)
    return present


def _told(error: VitrailError | CycloptsError, verb: str | None, words: list[str]) -> str:
    """The message. Options have the names by which they were typed, and what is unknown gets a suggestion."""
    if isinstance(error, UnknownOptionError) and verb is not None:
        return unknown_option((error.token.keyword or error.token.value).partition("=")[0], verb)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name, text = error.argument.names[0], (error.argument.parameter.help or "").partition(". ")[0].rstrip(".")
        missing = "needs a value" if error.keyword else "is missing"
        return f"{error.keyword or name} {missing} ({text[:1].lower()}{text[1:]}); 'vitrail {verb} --help' has examples"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        word = error.unused_tokens[0]
        data = f"; for images write --data {shlex.quote(word)}" if verb and "--data" in option_names(verb) else ""
        return f"'{word}' belongs to no option{data}; 'vitrail {verb} --help' has examples"
    return _as_typed(error, words)


def _as_typed(error: Exception, words: list[str]) -> str:
    """The message; a field whose option was typed is named by that option."""
    given = {word.partition("=")[0].replace("_", "-") for word in words}

    def show(field: str, value: object) -> str:
        option = option_name(field)
        return f"{option} {typed_words(value)}" if option in given else f"{field}={value!r}"

    return error.told(show) if isinstance(error, VitrailError) else str(error)


def _fail(message: str, status: int, debug: bool) -> int:
    if debug and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"vitrail: {' '.join(message.split())}", file=sys.stderr)
    return status


def _interrupted(verb: str | None, words: list[str]) -> str:
    if verb not in RESUMABLE:
        return "interrupted; nothing half-written is left, just start it again"
    return f"interrupted; continue with: {_again(words)}"


def _again(words: list[str]) -> str:
    return f"vitrail {shlex.join([*words, *(['--resume'] if '--resume' not in words else [])])}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unexpected(error: Exception, verb: str | None, words: list[str]) -> tuple[str, int]:
    """The message and the exit status of an error that is not ours."""
    if (fault := find_fault(error)) is not None:
        return f"error: {_fault_told(fault, verb, words)}", 2
    if isinstance(error, OSError):
        return f"error: {error.filename or 'operating system'}: {error.strerror or error}", 2
    return f"bug: {type(error).__name__}: {error}; please report it with what --debug prints", 1


def _fault_told(fault: Fault, verb: str | None, words: list[str]) -> str:
    """A fault of the machine, what helps, and how to go on."""
    if verb is None or verb in RESUMABLE:  # a training goes on with the settings that it began with
        then = "repeat the command" if verb is None else f"continue with: {_again(words)}"
        return f"{fault.what}; {fault.remedy}, then {then}"
    known = option_names(verb)
    options = [option for setting in fault.settings if (option := option_name(setting)) in known]
    return f"{fault.what}; {fault.advice(options)}, then repeat the command"


if __name__ == "__main__":
    sys.exit(main())
