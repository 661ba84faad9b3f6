"""The part of the data that the name of a file or folder says: ``instances_train2017`` is training."""

from __future__ import annotations

import re

from vitrail.data.formats.layout import PART_NAMES

INSIDE = {"train": "train", "val": "val", "test": "test", "holdout": "test"}
"""Words that count inside of longer ones, where whole words are not wanted."""


def part_in_name(name: str, *, whole_words: bool = True) -> str:
    """ "train", "val" or "test" where a name has a word for it, in any case; "" where it names none, or several.

    Args:
        name: name of a file or folder, without its suffix.
        whole_words: whether ``trainset`` names no part.
    """
    found = {PART_NAMES[word] for word in re.findall("[a-z]+", name.lower()) if word in PART_NAMES}
    if not found and not whole_words:
        found = {part for word, part in INSIDE.items() if word in name.lower()}
    return found.pop() if len(found) == 1 else ""
