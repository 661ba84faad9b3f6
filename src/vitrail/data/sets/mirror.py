"""Which keypoint takes whose place in a mirror, by their names."""

from __future__ import annotations

from collections.abc import Sequence


def mirror_order(names: Sequence[str]) -> tuple[int, ...]:
    """For each keypoint, the index of the one that takes its place in a mirror: left and right change, others stay."""
    index = {name: number for number, name in enumerate(names)}

    def other(name: str) -> str:
        return name.replace("left", "\0").replace("right", "left").replace("\0", "right")

    return tuple(index.get(other(name), number) for number, name in enumerate(names))


def has_mirror(names: Sequence[str]) -> bool:
    """Every left keypoint has a right one, so that a mirrored object is one of the same kind."""
    order = mirror_order(names)
    return all(order[i] != i for i, name in enumerate(names) if "left" in name or "right" in name)
