"""Operations that stay in float because the user says so."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from typing import get_args

from vitrail.core.errors import QuantizationError
from vitrail.quantization.graph.ops import Kind, QuantizedOp

KINDS = ("stem", "depthwise", *get_args(Kind))
"""Words of ``keep_float`` for operations wherever they are; a model need not have any."""


def split_by_keep_float(
    ops: Sequence[QuantizedOp], unsupported: Sequence[str], patterns: Sequence[str]
) -> tuple[list[QuantizedOp], list[str]]:
    """The operations that are quantised, and descriptions of all others.

    Args:
        ops: operations that can be quantised.
        unsupported: descriptions of those that cannot, each beginning with the module and ": ".
        patterns: ``keep_float`` of the configuration; empty ones, as in ``--keep-float ''``, name nothing.

    Raises:
        QuantizationError: a pattern matches nothing, or no operation is left.
    """
    patterns = list(filter(None, patterns))
    _check_patterns(ops, [text.partition(": ")[0] for text in unsupported], patterns)
    kept = {op.left.name: pattern for op in ops if (pattern := op.matches(patterns)) is not None}
    quantised = [op for op in ops if op.left.name not in kept]
    if not quantised:
        found = ", ".join(f"'{pattern}'" for pattern in dict.fromkeys(kept.values()))
        reason = f"keep_float {found} keeps all {len(ops)} in float; name fewer" if ops else "it has no such operation"
        why = f" ({unsupported[0]})" if unsupported and not ops else ""
        raise QuantizationError(f"no linear layer, convolution or matrix product would be in integers: {reason}{why}")
    lines = [
        f"{op.path or 'model'}: kept in float by keep_float '{kept[op.left.name]}'"
        for op in ops
        if op.left.name in kept
    ]
    return quantised, [*unsupported, *dict.fromkeys(lines)]


def _check_patterns(ops: Sequence[QuantizedOp], others: Sequence[str], patterns: Sequence[str]) -> None:
    paths = list(dict.fromkeys([*(op.path for op in ops), *others]))
    for pattern in patterns:
        known = pattern in KINDS or fnmatch.filter(paths, pattern)
        if known or any(op.matches([pattern]) for op in ops):
            continue
        if any(path.startswith(f"{pattern}.") for path in paths):
            hint = f"did you mean '{pattern}.*'?"
        elif close := difflib.get_close_matches(pattern, [*KINDS, *paths], n=1, cutoff=0.4):
            hint = f"did you mean '{close[0]}'?"
        else:
            hint = f"there are {', '.join(KINDS)}, and modules such as '{paths[-1] if paths else ''}'"
        raise QuantizationError(f"keep_float '{pattern}' matches no operation of the model; {hint}")
