"""How a model is loaded and run: one file a runtime, each with ``load(source, *, threads) -> Session``.

An export is checked, a file evaluated and a latency measured through the same :func:`open_session`. Importing this
package imports neither PyTorch nor a runtime.
"""

from vitrail.runtimes.session import Images, ModelFolder, Session, Shape, import_runtime, open_session, predictor
from vitrail.runtimes.table import (
    FORMATS,
    MEASURED,
    RUNTIMES,
    USUAL_RUNTIMES,
    Format,
    FormatName,
    Runtime,
    RuntimeName,
    check_formats,
    export_command,
    find_runtime,
    runtime_title,
    takers,
)

__all__ = [
    "FORMATS",
    "MEASURED",
    "RUNTIMES",
    "USUAL_RUNTIMES",
    "Format",
    "FormatName",
    "Images",
    "ModelFolder",
    "Runtime",
    "RuntimeName",
    "Session",
    "Shape",
    "check_formats",
    "export_command",
    "find_runtime",
    "import_runtime",
    "open_session",
    "predictor",
    "runtime_title",
    "takers",
]
