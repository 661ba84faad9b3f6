"""Errors that a user can correct.

Each message names the value, the limit and the remedy in one line. The command line prints this line and exits with
status 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class VitrailError(ValueError):
    """Base of all errors that the user can correct; any other exception is a bug in Vitrail.

    Attributes:
        complaint: fault and remedy.
        values: field -> value, if the fault is in fields of a configuration; the message begins with them.
    """

    def __init__(self, complaint: str, /, **values: Any) -> None:
        self.complaint, self.values = complaint, values
        super().__init__(self.told(lambda name, value: f"{name}={value!r}"))

    def told(self, show: Callable[[str, Any], str]) -> str:
        """The message, with each field and its value in the form of ``show``."""
        subject = ", ".join(show(name, value) for name, value in self.values.items())
        return f"{subject}{':' * (len(self.values) > 1)} {self.complaint}".lstrip()


class ConfigError(VitrailError):
    """An option or a configuration field has a value that is not allowed."""


class UnknownNameError(VitrailError):
    """There is no model, runtime, preset, ... of that name."""


class CodeError(VitrailError):
    """A user's own code cannot be imported, registers what is not allowed, or is missing."""


class ImageSizeError(VitrailError):
    """The model cannot take images of that size."""


class CheckpointError(VitrailError):
    """A weights file is unreadable, or its tensors do not fit the model."""


class DataError(VitrailError):
    """A data set is missing, empty, or has more broken files than allowed."""


class RunError(VitrailError):
    """A run folder is missing, incomplete, or of another kind than the command needs."""


class LockedError(RunError):
    """Another process writes to what the command needs."""


class TrainingError(VitrailError):
    """Training cannot continue: the loss is not finite, memory ran out, or it was stopped."""


class ExportError(VitrailError):
    """A model could not be exported, or the exported file disagrees with the model."""


class QuantizationError(VitrailError):
    """A model could not be quantised as asked."""


class BenchError(VitrailError):
    """A measurement could not be taken."""


class MissingDependencyError(VitrailError):
    """An optional extra is needed, and is not installed or does not load."""

    def __init__(self, package: str, extra: str, then: str = "", *, reason: str = "") -> None:
        """``then`` is a second command, for packages that pip cannot resolve as an extra; ``reason`` says what is wrong
        with a package that is installed."""
        command = f"pip install 'vitrail[{extra}]'" + (f" && {then}" if then else "")
        remedy = f"install what is missing with: {command}" if reason else f"install it with: {command}"
        super().__init__(f"{package} {reason or 'is not installed'}; {remedy}")
