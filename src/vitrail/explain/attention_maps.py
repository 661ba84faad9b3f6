"""Attention probabilities of a model that runs, without a change to the model.

Vitrail's attention goes through PyTorch's fused kernel, which never has the probabilities. Inside
:func:`capture_attention` a function mode computes them beside every call of the kernel, from the same queries and keys;
the kernel still makes the output, so that it is the same to the last bit. Outside, nothing is hooked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrail.core.types import ImageSize
from vitrail.explain.places import find_places
from vitrail.layers import Places

SOFTMAXES = (torch.softmax, Tensor.softmax, F.softmax)


@dataclass(frozen=True, kw_only=True)
class AttentionMap:
    """One attention call.

    Attributes:
        path: name of the module that made it, as in ``model.named_modules()``.
        probabilities: (b, groups, heads, queries, keys); the groups of an image (windows, rows, ...) are one axis.
        own: the same before the logits of earlier blocks were mixed in, where residual attention has that.
        places: centres of queries and keys in the image, or None where they are unknown.
    """

    path: str
    probabilities: Tensor
    own: Tensor | None = None
    places: Places | None = None


@contextmanager
def capture_attention(model: nn.Module) -> Iterator[list[AttentionMap]]:
    """Collect every attention call of ``model`` while the block lasts, in the order of the calls.

    It sees calls of ``scaled_dot_product_attention`` and softmaxes over the last axis of four-dimensional tensors, so
    it works for other libraries' models too. Linear attention (Performer) has no probabilities and is not seen. The
    maps are detached; a model for 196 tokens with 12 layers of 12 heads takes 22 MB an image.
    """
    recorder = _Recorder(model)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(recorder.entering(name)).remove)
            stack.callback(module.register_forward_hook(recorder.leaving, always_call=True).remove)
        stack.enter_context(recorder)
        yield recorder.maps


def attention_probabilities(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """What the fused kernel multiplies the values with, (..., queries, keys); arguments as it has them."""
    logits = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask
    return logits.softmax(-1)


class _Recorder(TorchFunctionMode):
    """Knows which module is being called, and writes down what attention does there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.maps: list[AttentionMap] = []
        self._calls: list[tuple[str, nn.Module, Any]] = []
        self._image_size: ImageSize | None = None
        self._batch = 0
        self._channels = getattr(getattr(model, "config", None), "in_chans", 3)
        known = getattr(model, "num_prefix_tokens", getattr(getattr(model, "backbone", None), "num_prefix_tokens", 0))
        self._prefixes = tuple(dict.fromkeys((known, 0, 1)))

    def entering(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """A hook that runs before the module of that name."""

        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            first = args[0] if args else None
            if not self._calls and isinstance(first, Tensor) and first.ndim == 4 and first.shape[1] == self._channels:
                self._image_size, self._batch = (first.shape[2], first.shape[3]), first.shape[0]
            self._calls.append((name, module, first))

        return hook

    def leaving(self, *_: Any) -> None:
        """A hook that runs after every module."""
        if self._calls:
            self._calls.pop()

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._add(_of_kernel(*args, **kwargs))
        elif func in SOFTMAXES and result.ndim == 4 and _axis(args, kwargs) in (-1, 3):
            self._add(result)
        return result

    @torch.no_grad()
    def _add(self, probabilities: Tensor) -> None:
        path, module, x = self._calls[-1] if self._calls else ("", None, None)
        batch = self._batch or probabilities.shape[0]
        grouped = _grouped(probabilities.detach(), batch, module)
        shape = (grouped.shape[1], grouped.shape[3], grouped.shape[4])
        own = places = None
        if own_probabilities := getattr(module, "own_probabilities", None):
            own = own_probabilities(x)[:, None].detach()
        if self._image_size is not None:
            called = [(module, x) for _, module, x in self._calls]
            places = find_places(called, shape, self._image_size, self._prefixes)
        self.maps.append(AttentionMap(path=path, probabilities=grouped, own=own, places=places))


def _of_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,  # noqa: ARG001 (the kernel's signature)
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    with torch.no_grad():
        return attention_probabilities(query, key, attn_mask, is_causal, options.get("scale"))


def _axis(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    return args[1] if len(args) > 1 else kwargs.get("dim")


def _grouped(probabilities: Tensor, batch: int, module: nn.Module | None) -> Tensor:
    """(b, groups, heads, queries, keys): groups lie in the batch, or beside the heads where there are more than those
    of the module."""
    heads = getattr(module, "num_heads", probabilities.shape[1])
    if probabilities.shape[1] > heads and probabilities.shape[1] % heads == 0:
        return probabilities.unflatten(1, (-1, heads))
    if probabilities.shape[0] % batch:
        return probabilities[:, None]
    return probabilities.unflatten(0, (batch, -1))
