"""Features of a frozen backbone: what the classifier reads, kept by contents, computed anew where a file is damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import CheckpointError, DataError
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, LabelledImage
from vitrail.models import Backbone, create_model
from vitrail.training.embedding import embed

PREPROCESSING = Preprocessing(image_size=(32, 32))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return create_model("vitae_plain_nano_patch4", num_classes=3, image_size=32)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    draw = np.random.default_rng(0)
    folder = tmp_path / "bildér é"
    folder.mkdir()
    records = []
    for index in range(5):
        path = folder / f"{index}.png"
        Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        records.append(LabelledImage(name=path.name, source=path, label=index % 3))
    return ImageSet(records=records)


def count_calls(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    original = backbone.forward_features
    monkeypatch.setattr(backbone, "forward_features", lambda x: (seen.append(len(x)), original(x))[1])
    return seen


def test_the_classifier_reads_these_features(backbone: Backbone, images: ImageSet) -> None:
    features = embed(backbone, images, PREPROCESSING, batch_size=2)
    pixels = torch.stack([images.fitted(i, PREPROCESSING)[0] for i in range(5)])
    with torch.inference_mode():
        logits = backbone.eval()(PREPROCESSING.normalize(pixels))
        torch.testing.assert_close(backbone.head(torch.from_numpy(features)), logits, atol=1e-5, rtol=1e-4)


def test_a_known_image_is_not_computed_again(
    backbone: Backbone, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "new folder" / "cache"
    first = embed(backbone, images.subset([0, 1, 2]), PREPROCESSING, cache=cache)
    seen = count_calls(backbone, monkeypatch)
    renamed = [replace(record, name=f"other/{record.name}") for record in images.records]
    again = embed(backbone, replace(images, records=[*renamed, renamed[4]]), PREPROCESSING, cache=cache)
    assert seen == [2]
    np.testing.assert_array_equal(again[:3], first)
    np.testing.assert_array_equal(again[4], again[5])
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("change", ["weights", "size", "mean", "range"])
def test_another_input_or_network_has_a_file_of_its_own(
    change: str, backbone: Backbone, images: ImageSet, tmp_path: Path
) -> None:
    before = embed(backbone, images, PREPROCESSING, cache=tmp_path / "cache")
    preprocessing, samples, model = PREPROCESSING, images, backbone
    if change == "weights":
        torch.manual_seed(1)
        model = create_model("vitae_plain_nano_patch4", num_classes=3, image_size=32)
    elif change == "size":
        preprocessing = replace(PREPROCESSING, crop_fraction=0.5)
    elif change == "mean":
        preprocessing = PREPROCESSING.changed(mean=(0.0,))
    else:
        samples = replace(images, pixel_range=(0.0, 255.0))
    after = embed(model, samples, preprocessing, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert change in ("size", "range") or not np.allclose(before, after)


def test_the_classifier_itself_does_not_matter(backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    embed(backbone, images, PREPROCESSING, cache=tmp_path / "cache")
    other = create_model("vitae_plain_nano_patch4", num_classes=7, image_size=32, drop_path_rate=0.1)
    other.load_state_dict({k: v for k, v in backbone.state_dict().items() if not k.startswith("head.")}, strict=False)
    embed(other, images, PREPROCESSING, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "bit", "other", "empty"])
def test_a_damaged_file_is_computed_anew(damage: str, backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = embed(backbone, images, PREPROCESSING, cache=cache)
    (file,) = cache.iterdir()
    contents = bytearray(file.read_bytes())
    if damage == "cut":
        contents = contents[:-20]
    elif damage == "bit":
        contents[-100] ^= 1
    elif damage == "other":
        contents = bytearray(b"not this")
    else:
        contents = bytearray()
    file.write_bytes(contents)
    np.testing.assert_array_equal(embed(backbone, images, PREPROCESSING, cache=cache), before)
    assert len(file.read_bytes()) > 1000


def test_a_folder_that_cannot_be_written_changes_nothing(backbone: Backbone, images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    features = embed(backbone, images, PREPROCESSING, cache=tmp_path / "file")
    np.testing.assert_array_equal(features, embed(backbone, images, PREPROCESSING))


def test_no_images_and_no_numbers_are_told(backbone: Backbone, images: ImageSet) -> None:
    with pytest.raises(DataError, match="no images"):
        embed(backbone, images.subset([]), PREPROCESSING)
    broken = create_model("vitae_plain_nano_patch4", num_classes=3, image_size=32)
    with torch.no_grad():
        broken.stem.proj.bias.fill_(torch.inf)
    with pytest.raises(CheckpointError, match=r"features of 0\.png that are not finite"):
        embed(broken, images, PREPROCESSING)
