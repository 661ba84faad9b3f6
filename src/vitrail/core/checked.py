"""Values of files as pydantic models: checked as a whole, and refused in one sentence."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitrail.core.errors import RunError, VitrailError
from vitrail.core.files import finite_only

Model = TypeVar("Model", bound=BaseModel)

SHOWN = 60
"""Characters of a wrong value that a message shows."""


Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
"""A number with which can be computed."""

Share = Annotated[float, Field(ge=-1e-6, le=1 + 1e-6)]
"""A share from 0 to 1, with the error of a sum of floats."""


class FileModel(BaseModel):
    """The contents of a file, or a part of them; fields of later versions are kept and not read."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


def checked(model: type[Model], values: Any, source: str, remedy: str) -> Model:
    """The contents of a file, all of them checked. A number that is not finite counts as null.

    Args:
        model: what the file holds; a field ``version`` has the newest version that is known as its default.
        values: plain values of JSON.
        source: name of the file, for messages.
        remedy: what mends the file, for messages.

    Raises:
        RunError: a field is missing or wrong; the message names file, field, value and remedy.
    """
    try:
        return model.model_validate(finite_only(values))
    except ValidationError as error:
        first = error.errors()[0]
        where, told = ".".join(map(str, first["loc"])), _told(dict(first))
        if _is_later(model, values):
            remedy = f"a later Vitrail wrote it (version {values['version']}); update Vitrail, or {remedy}"
        subject = f"{source}: '{where}'" if where else source
        raise RunError(f"{subject} {told}; {remedy}") from error
    except RecursionError as error:
        raise RunError(f"{source} is nested too deeply; {remedy}") from error


def _told(error: dict[str, Any]) -> str:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, VitrailError):
        return f"is wrong: {cause}"
    if error["type"] == "missing" or error["input"] is None:
        return "is missing"
    shown = repr(error["input"])
    value = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return f"is {value}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _is_later(model: type[BaseModel], values: Any) -> bool:
    known = model.model_fields["version"].default if "version" in model.model_fields else None
    found = values.get("version") if isinstance(values, dict) else None
    return isinstance(known, int) and isinstance(found, int) and found > known
