from __future__ import annotations

from collections import Counter

from hypothesis import given, strategies as st

from vitrail.data import DataConfig, ImageSet, LabelledImage
from vitrail.data.sets.splits import cut_by_class


@st.composite
def images(draw: st.DrawFn) -> ImageSet:
    counts = draw(st.lists(st.integers(2, 30), min_size=1, max_size=6))
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return ImageSet(
        records=[LabelledImage(name=f"{label}/{i}", source=b"", label=label) for i, label in enumerate(labels)]
    )


@given(images(), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_every_class_is_cut_and_the_seed_repeats_it(images: ImageSet, fraction: float, seed: int) -> None:
    config = DataConfig(val_fraction=fraction, seed=seed)
    chosen = cut_by_class(images, config)
    assert len(set(chosen)) == len(chosen)
    total, kept = Counter(images.labels.tolist()), Counter(images.subset(chosen).labels.tolist())
    for label, count in total.items():
        assert 1 <= kept[label] <= count - 1
        assert abs(kept[label] - fraction * count) <= 1
    assert chosen == cut_by_class(images, config)


@given(images(), st.integers(0, 100))
def test_the_cut_does_not_depend_on_the_order_of_the_images(images: ImageSet, seed: int) -> None:
    config = DataConfig(val_fraction=0.3, seed=seed)
    turned = images.subset(range(len(images))[::-1])
    first, second = images.subset(cut_by_class(images, config)), turned.subset(cut_by_class(turned, config))
    assert set(first.names) == set(second.names)
