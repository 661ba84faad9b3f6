"""Import of what comes with an optional extra."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vitrail.core.errors import MissingDependencyError


def import_extra(module: str, package: str, extra: str, then: str = "") -> Any:
    """A module of an optional package.

    Args:
        module: full name of the module.
        package: distribution that has it.
        extra: extra of Vitrail that installs it.
        then: second command that installs what pip cannot resolve as a part of the extra.

    Raises:
        MissingDependencyError: the package is not installed, or is and does not load; then the message names the module
            that it misses, or has the reason.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # packages whose libraries do not fit raise all kinds
        raise MissingDependencyError(package, extra, then, reason=_reason(error, module, package)) from error


def _reason(error: Exception, module: str, package: str) -> str:
    """Why a module does not load; empty where its package is not installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        own = module.partition(".")[0]
        return "" if error.name == own else f"needs the module {error.name}, which is not installed"
    lines = str(error).splitlines() or [type(error).__name__]
    return f"is installed and does not load: {lines[0]}"
