"""Registration of users' own families, token mixers, tasks and heads: ``@vitrail.register``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from types import FrameType
from typing import Any, TypeVar, overload

from torch import nn

from vitrail.core.errors import CodeError
from vitrail.core.registered import claim
from vitrail.layers import TOKEN_MIXERS, as_entry
from vitrail.layers.token_mixer import Layout
from vitrail.models import FAMILIES, Backbone, BackboneConfig, Family
from vitrail.tasks.create import TASKS
from vitrail.tasks.heads.semantic import HEADS
from vitrail.tasks.kind import TaskKind

LAYOUTS = ("map", "channels_last", "tokens")

HEADS_OF: Mapping[str, MutableMapping[str, Any]] = {"segmentation": HEADS}
"""Task -> its heads by name; a head takes (channels of the maps, number of classes, width)."""

T = TypeVar("T")


@overload
def register(what: T) -> T: ...


@overload
def register(
    what: None = None,
    *,
    name: str | None = None,
    layout: Layout = "map",
    divisor: int = 1,
    head_of: str | None = None,
    variants: Mapping[str, BackboneConfig] | None = None,
) -> Callable[[T], T]: ...


def register(
    what: Any = None,
    *,
    name: str | None = None,
    layout: Layout = "map",
    divisor: int = 1,
    head_of: str | None = None,
    variants: Mapping[str, BackboneConfig] | None = None,
) -> Any:
    """Give own code a name that configurations, the command line and runs can use.

    It is a decorator, or a call with a finished object. What is registered follows from what it is:

    - a :class:`~vitrail.models.Family`, or a backbone with ``variants``: its variants are models like any other;
    - a module class or a function that makes one of a width: a token mixer, ``token_mixer: NAME`` in MetaFormer;
    - with ``head_of``: a head of that task, ``--option.head NAME``;
    - a :class:`~vitrail.tasks.TaskKind`: a task, ``--task NAME``.

    Example::

        import vitrail
        from torch import nn

        @vitrail.register
        class MeanMixer(nn.Module):
            def __init__(self, dim: int) -> None:
                super().__init__()
                self.proj = nn.Conv2d(dim, dim, 1)

            def forward(self, x):
                return self.proj(x.mean((2, 3), keepdim=True)) + x

        vitrail.create_model("poolformer_nano", token_mixer="MeanMixer")

    Args:
        what: class, function, family or task; None where the decorator has arguments.
        name: its name. Default: that of the class or function; families and tasks have their own.
        layout: what a token mixer takes and returns: "map" (b, c, h, w), "channels_last" (b, h, w, c), or "tokens"
            (b, n, c).
        divisor: the sides of a token mixer's maps must be multiples of it.
        head_of: task that a head belongs to; "segmentation" takes heads.
        variants: name -> configuration, for a backbone class.

    Returns:
        ``what``, unchanged.

    Raises:
        CodeError: it is nothing that can be registered, or its name is taken by Vitrail or by another module. The same
            module may register a name again, which replaces it, as when a notebook's cell is run twice.
    """
    frame = inspect.currentframe()
    module = _module_of(frame.f_back if frame is not None else None)

    def registering(given: T) -> T:
        if isinstance(given, TaskKind):
            _register_task(given, module)
        elif head_of is not None:
            _register_head(given, name, head_of, module)
        elif isinstance(given, Family):
            if name is not None or variants is not None:
                raise CodeError(f"family '{given.name}' has a name and variants; leave name= and variants= away")
            _register_family(given.name, given.backbone, given.variants, lambda: given, module)
        elif inspect.isclass(given) and issubclass(given, Backbone):
            family, known = name or given.__name__, variants or {}
            build = partial(Family, name=family, backbone=given, variants=known)
            _register_family(family, given, known, build, module)
        else:
            _register_mixer(given, name, layout, divisor, module)
        return given

    return registering if what is None else registering(what)


def _module_of(frame: FrameType | None) -> str:
    return str(frame.f_globals.get("__name__", "")) if frame is not None else ""


def _register_mixer(mixer: Any, name: str | None, layout: Layout, divisor: int, module: str) -> None:
    if not callable(mixer) or (inspect.isclass(mixer) and not issubclass(mixer, nn.Module)):
        raise CodeError(
            f"{mixer!r} cannot be registered; give a module class or a function that makes one, a Family or a TaskKind"
        )
    if isinstance(mixer, nn.Module):
        raise CodeError(f"{type(mixer).__name__}(...) is one module, and each block needs its own; give its class")
    if layout not in LAYOUTS:
        raise CodeError(f"layout='{layout}' is unknown; choose {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}")
    if not isinstance(divisor, int) or divisor < 1:
        raise CodeError(f"divisor={divisor!r} is no whole number from 1")
    name = _name_of(mixer) if name is None else name
    claim("token mixer", name, mixer, module, TOKEN_MIXERS, (name,))
    TOKEN_MIXERS[name] = as_entry(mixer, name, layout, divisor)


def _register_head(head: Any, name: str | None, task: str, module: str) -> None:
    if task not in HEADS_OF:
        raise CodeError(
            f"head_of='{task}': this task has no exchangeable heads; {', '.join(HEADS_OF)} has. Register a whole task"
        )
    if not callable(head) or isinstance(head, nn.Module):
        raise CodeError(f"head of {task} {head!r} is no class or function; it takes (channels, num_classes, width)")
    name = _name_of(head) if name is None else name
    claim(f"head of {task}", name, head, module, HEADS_OF[task], (name,))
    HEADS_OF[task][name] = head


def _register_task(kind: TaskKind, module: str) -> None:
    claim("task", kind.name, kind.task, module, TASKS, (kind.name,))
    TASKS[kind.name] = kind


def _register_family(name: str, backbone: Any, variants: Any, build: Callable[[], Family], module: str) -> None:
    if not (inspect.isclass(backbone) and issubclass(backbone, Backbone)):
        raise CodeError(f"family '{name}': {backbone!r} is no subclass of vitrail.models.Backbone")
    if inspect.isabstract(backbone):
        missing = ", ".join(sorted(backbone.__abstractmethods__))
        raise CodeError(f"family '{name}': {backbone.__name__} lacks the methods {missing}")
    if not isinstance(variants, Mapping) or not variants:
        example = f"@vitrail.register(variants={{'NAME': {backbone.__name__}Config()}})"
        raise CodeError(f"family '{name}' needs variants, at least one: {example}")
    for variant, config in variants.items():
        _check_variant(name, variant, config)
    known = FAMILIES.get(name)
    taken = {variant: other.name for other in FAMILIES.values() if other is not known for variant in other.variants}
    if clash := next((variant for variant in variants if variant in taken), None):
        raise CodeError(f"variant '{clash}' of family '{name}' is one of family '{taken[clash]}'; rename it")
    claim("family", name, backbone, module, FAMILIES, tuple(variants))
    FAMILIES[name] = build()


def _check_variant(family: str, variant: str, config: Any) -> None:
    if isinstance(config, type) or not isinstance(config, BackboneConfig):
        shown = f"the class {config.__name__}" if isinstance(config, type) else f"a {type(config).__name__}"
        raise CodeError(
            f"variant '{variant}' of family '{family}' is {shown}; it must be an object of a frozen dataclass that "
            "extends vitrail.models.BackboneConfig"
        )
    if "__dataclass_fields__" not in vars(type(config)):
        text = f"{type(config).__name__} of family '{family}' is no dataclass"
        raise CodeError(f"{text}; put @dataclass(frozen=True, kw_only=True) above it")


def _name_of(what: Any) -> str:
    name = getattr(what, "__name__", "")
    if not name.isidentifier():
        raise CodeError(f"{what!r} has no name of its own; give it one: vitrail.register(name='NAME')(...)")
    return str(name)
