"""The ``vitrail`` command: finds the verb, and turns errors into one line and an exit status.

Exit statuses: 0 done, 2 an error that the user can mend, 130 interrupted, 1 a bug in Vitrail.
Nothing here imports PyTorch: a verb's module is imported only when that verb is asked for.
"""

from __future__ import annotations

import difflib
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence

from cyclopts import App, CycloptsError, Parameter

from vitrail import __version__
from vitrail.cli.words import MAIN, default_words, option_name, typed_words
from vitrail.core.errors import VitrailError
from vitrail.core.faults import Fault, find_fault

VERBS = {
    "demo": "See the whole way on the embedded sample, in minutes on a laptop",
    "run": "Go the whole way on your own folder of images",
    "models": "List the models, or show the card of one",
    "pretrain": "Train a backbone on images without labels",
    "train": "Train a model on a folder of images",
    "evaluate": "Measure the accuracy of a run or of a weights file",
    "predict": "Classify files, folders, or paths from standard input",
    "compare": "Train several models under one recipe and compare them",
    "explain": "Show what a model looks at, and what its features are like",
    "quantize": "Turn a run's model into integers of 8 bits or fewer",
    "export": "Write a run's model as verified files: ONNX, OpenVINO, ExecuTorch, LiteRT, ...",
    "bench": "Measure latency, memory and energy of runs' files in every runtime",
    "pareto": "Show accuracy over latency, energy and size, of several runs",
    "recommend": "Name the best file that keeps to your limits, and say why",
    "report": "Write a run's HTML report",
}

RESUMABLE = ("pretrain", "train", "run", "demo")

EPILOGUE = "`vitrail VERB --help` explains a verb, with examples. Start with: `vitrail demo`"


def build_app(verb: str | None = None) -> App:
    """The application. Every verb but the one asked for is listed by its summary alone, without importing it."""
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
        path = f"vitrail.cli.{name}:{name}"
        app.command(path, name=name, help=None if name == verb else summary, sort_key=list(VERBS).index(name))
    app.register_install_completion_command(help="Install tab completion for your shell", sort_key=len(VERBS))
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (that of the process by default) and return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words[0] if words and words[0] in VERBS else None
    debug = "--debug" in words
    if verb is None and words and not words[0].startswith("-"):
        return _fail(f"error: {_unknown_verb(words[0])}", 2, debug)
    try:
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
        return _fail(f"error: {_as_typed(error, words)}", 2, debug)
    except Exception as error:  # noqa: BLE001 (whatever it is, the user gets one line)
        if (fault := find_fault(error)) is not None:
            return _fail(f"error: {_told(fault, verb, words)}", 2, debug)
        if isinstance(error, OSError):
            return _fail(f"error: {error.filename or 'operating system'}: {error.strerror or error}", 2, debug)
        return _fail(f"bug: {type(error).__name__}: {error}; please report it with what --debug prints", 1, debug)


def _as_typed(error: Exception, words: list[str]) -> str:
    """The message; a field whose option was typed is named by that option."""
    given = {word.partition("=")[0].replace("_", "-") for word in words}

    def show(field: str, value: object) -> str:
        option = option_name(field)
        return f"{option} {typed_words(value)}" if option in given else f"{field}={value!r}"

    return error.told(show) if isinstance(error, VitrailError) else str(error)


def _unknown_verb(word: str) -> str:
    close = difflib.get_close_matches(word, VERBS, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"the verbs are {', '.join(VERBS)}"
    return f"unknown verb '{word}'; {hint}"


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


def _told(fault: Fault, verb: str | None, words: list[str]) -> str:
    """A fault of the machine, what helps, and how to go on."""
    if verb is None or verb in RESUMABLE:  # a training goes on with the settings that it began with
        then = "repeat the command" if verb is None else f"continue with: {_again(words)}"
        return f"{fault.what}; {fault.remedy}, then {then}"
    known = {name for argument in build_app(verb)[verb].assemble_argument_collection() for name in argument.names}
    options = [option for setting in fault.settings if (option := option_name(setting)) in known]
    return f"{fault.what}; {fault.advice(options)}, then repeat the command"


if __name__ == "__main__":
    sys.exit(main())
