"""What a network of timm says of its levels."""

from __future__ import annotations

from typing import Any

from torch import nn

from vitrail.core.types import FeatureInfo


def levels_of(network: Any) -> tuple[FeatureInfo, ...]:
    """The levels that ``forward_intermediates`` of a network gives; none where it has no such method."""
    return tuple(
        FeatureInfo(name=_module_name(network, info["module"]), channels=info["num_chs"], stride=info["reduction"])
        for info in _told(network)
    )


def takes_norm(network: Any) -> bool:
    """Whether the final norm can be applied to a level.

    It cannot where the norm is a neck, which gives other channels than ``feature_info`` says, and where the network
    refuses: it does so before it looks at the image, so that it is asked without one.
    """
    if any(info.get("num_chs_norm", info["num_chs"]) != info["num_chs"] for info in _told(network)):
        return False
    try:
        network.forward_intermediates(None, norm=True)
    except AssertionError:
        return False
    except Exception:  # noqa: BLE001 (there is no image)
        return True
    return True


def _told(network: Any) -> list[dict[str, Any]]:
    return list(getattr(network, "feature_info", ())) if hasattr(network, "forward_intermediates") else []


def _module_name(network: nn.Module, told: str) -> str:
    """Name of the module of a level; some networks say ``block.0`` where they have ``stages.0`` or ``blocks.0``."""
    known, end = dict(network.named_modules()), told.rpartition(".")[2]
    near = (name for name in (told, f"stages.{end}", f"blocks.{end}") if name in known)
    return f"network.{next(near, told)}"
