from __future__ import annotations

from vitrail.data import has_mirror, mirror_order


def test_mirrors() -> None:
    assert mirror_order(["nose", "left_ear", "right_ear", "leftpaw", "rightpaw"]) == (0, 2, 1, 4, 3)
    assert has_mirror(["left_eye", "right_eye", "nose"])
    assert not has_mirror(["left_eye", "nose"])
