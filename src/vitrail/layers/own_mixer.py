"""Token mixers of users' own code: built with the arguments that they have, and checked on a map before training."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.layers.token_mixer import Build, Layout, MapMixer, MixerOptions

OwnMixer = Callable[..., nn.Module]
"""A class or function of a user: the width, and by name any fields of :class:`MixerOptions`, to a module."""

SHOWN = 200
"""Characters of another library's message that are shown."""


def as_entry(mixer: OwnMixer, name: str, layout: Layout, divisor: int) -> Build:
    """A user's mixer as an entry of :data:`~vitrail.layers.TOKEN_MIXERS`.

    Args:
        mixer: class or function.
        name: name of it in messages.
        layout: what the module takes and returns: "map" (b, c, h, w), "channels_last" (b, h, w, c), "tokens" (b, n, c).
        divisor: the sides of its maps must be multiples of it.
    """
    known = asdict(MixerOptions())
    taken = [parameter for parameter in _parameters(mixer)[1:] if parameter in known]

    def build(dim: int, options: MixerOptions) -> MapMixer:
        return MapMixer(build_mixer(mixer, name, dim, **{one: getattr(options, one) for one in taken}), layout, divisor)

    return build


def _parameters(mixer: OwnMixer) -> list[str]:
    try:
        return list(inspect.signature(mixer).parameters)
    except (TypeError, ValueError):
        return []


def build_mixer(mixer: OwnMixer, name: str, dim: int, **options: Any) -> nn.Module:
    """A user's mixer of the width ``dim``.

    Raises:
        ConfigError: it cannot be built, or is no module.
    """
    try:
        built = mixer(dim, **options)
    except Exception as error:  # whatever it is, it is the user's code that raised it
        raise ConfigError(f"token mixer '{name}' cannot be built for width {dim}: {_told(error)}") from error
    if not isinstance(built, nn.Module):
        raise ConfigError(f"token mixer '{name}' gives a {type(built).__name__} for width {dim}; it must be a module")
    return built


def check_mixer(mixer: nn.Module, name: str, dim: int, grid: tuple[int, int]) -> None:
    """Send one map through a user's mixer.

    Args:
        mixer: module on maps (b, c, h, w).
        name: name of it in messages.
        dim: width.
        grid: height and width of the map.

    Raises:
        ConfigError: it fails, or changes the shape; the message has both shapes.
    """
    first = next(mixer.parameters(), None)
    device = torch.empty(0).device if first is None else first.device  # within ``with torch.device(...)`` that one
    x = torch.zeros(2, dim, *grid, device=device, dtype=None if first is None else first.dtype)
    modes = {module: module.training for module in mixer.modules()}
    mixer.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            y = mixer(x)
    except Exception as error:  # as above
        raise ConfigError(f"token mixer '{name}' fails on a map of {_shape(x)}: {_told(error)}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    if not isinstance(y, Tensor) or y.shape != x.shape:
        given = _shape(y) if isinstance(y, Tensor) else type(y).__name__
        raise ConfigError(
            f"token mixer '{name}' turns a map of {_shape(x)} (images, channels, rows, columns) into {given}; it must "
            "keep the shape, or say what it works on: @vitrail.register(layout='tokens') or layout='channels_last'"
        )


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape))


def _told(error: Exception) -> str:
    """An error of a user's code with its last line there."""
    text = " ".join(str(error).split())[:SHOWN]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}torch{os.sep}" not in frame.filename and frame.filename != __file__
    ]
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"
