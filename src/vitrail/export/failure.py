"""What a failed export tells the user: which operation, and what to do about it, in one line."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from vitrail.core.errors import ExportError, VitrailError
from vitrail.quantization.graph.capture import quiet

_OPERATIONS = (
    re.compile(r"op='(?P<name>[\w.:]+)'"),
    re.compile(r"(?P<name>(?:aten|torchvision|prims)[.:]+[\w.]+)"),
    re.compile(r"[Uu]nsupported fx node (?P<name>\w+)"),
    re.compile(r"'(?P<name>tfl\.\w+)' op "),
)

_LIMIT = re.compile(r'(?P<why>Core ML only supports [^.]+)\. Layer "[^"]*", with type "(?P<name>\w+)", (?P<what>[^.]+)')
"""The format cannot hold the output of an operation that the converter knows."""


@contextlib.contextmanager
def explained(target: str) -> Iterator[None]:
    """Turn whatever a converter raises into an :class:`ExportError`, and keep its chatter from the terminal.

    Args:
        target: title of the format, e.g. "ONNX".

    Raises:
        ExportError: names the operation at fault where the converter does.
    """
    try:
        with silence():
            yield
    except VitrailError:
        raise
    except Exception as failure:  # converters raise all kinds; each means the same to the user
        raise ExportError(explain(failure, target)) from failure


def explain(failure: BaseException, target: str) -> str:
    """One line that names the operation at fault, found in the chain of causes, and says what to do."""
    chain: list[BaseException] = []
    cause: BaseException | None = failure
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for error in reversed(chain):
        if found := _LIMIT.search(str(error)):
            return (
                f"operation {found['name']} {found['what']}, and {found['why']}; rewrite it in the model, or take "
                "another format (nothing was written)"
            )
        for pattern in _OPERATIONS:
            if found := pattern.search(str(error)):
                return (
                    f"operation {found['name']} has no {target} counterpart; replace it in the model by simpler "
                    f"operations (nothing was written)"
                )
    lines = str(chain[-1]).strip().splitlines()
    if lines and lines[0].startswith("Exception from "):
        lines.reverse()  # OpenVINO begins with where in its source, and ends with why
    reason = lines[0].rstrip(". ") if lines else type(chain[-1]).__name__
    return f"the model cannot be exported to {target}: {reason} (nothing was written)"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """As :func:`quiet`, for libraries in C++ too, which write to the process's own standard output and error."""
    with quiet(), contextlib.ExitStack() as stack:
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        for descriptor in (1, 2):
            stack.enter_context(_to_nowhere(descriptor))
        yield


@contextlib.contextmanager
def _to_nowhere(descriptor: int) -> Iterator[None]:
    try:
        kept = os.dup(descriptor)
    except OSError:  # a service may have closed it
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(nowhere)
