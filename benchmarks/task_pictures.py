"""The row of pictures in the README: what models of three tasks answer.

    python benchmarks/task_pictures.py WORK

Makes scenes of the embedded hand signs (Apache-2.0), trains a small segmentation model in minutes of one processor, and
draws its answer to a test scene. Boxes are those of docs/pictures/cells-dfine.jpg, made pictures those of
docs/results/generation.png. The signs are cut out by their colour, so that their masks are known. Writes
docs/pictures/tasks.jpg. WORK keeps data and run: a second call only draws.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import vitrail
from vitrail.core.files import write_text
from vitrail.data import DataConfig, load_data
from vitrail.runs.predict import predict_run

DOCS = Path(__file__).parents[1] / "docs"
MADE = (4, 285, 230, 454)
"""Where the made pictures are in docs/results/generation.png."""
CELL = (300, 225)
SIGNS = ("one", "two", "five")
DIGITS = (1, 2, 5)
SIZE = (192, 144)  # width, height of a scene
PARTS = {"train": 96, "val": 16, "test": 4}
SETTINGS: dict[str, Any] = {
    "image_size": (64, 96),
    "epochs": 15,
    "model": "edgevit_nano_stride2",
    "model_fields": {"strides": (4, 2, 2, 2)},
    "options": {"width": 32},
    "batch_size": 8,
    "learning_rate": 2e-3,
    "ema_decay": 0.97,
    "drop_path_rate": 0.0,
    "hflip": 0.0,
    "rand_augment_num_ops": 0,
    "random_erasing": 0.0,
    "random_resized_crop_scale": (0.7, 1.0),
    "num_workers": 0,
    "accelerator": "cpu",
}


def cut_out(image: Image.Image) -> Image.Image:
    """A photograph of a hand with its background made transparent: skin is warmer than the grey wall."""
    red, _, blue = np.moveaxis(np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC), dtype=float), -1, 0)
    warmth = red - blue
    mask = Image.fromarray(np.uint8(255 * (warmth > (warmth.min() + warmth.max()) / 2)))
    cut = image.resize((96, 96), Image.Resampling.BICUBIC).convert("RGBA")
    cut.putalpha(mask.filter(ImageFilter.MedianFilter(5)))
    return cut


def hands(part: str) -> dict[int, list[Image.Image]]:
    """Sign -> photographs of a part of the embedded sample, cut out; those with an unlikely area are left out."""
    images = getattr(load_data(DataConfig()), part)
    found: dict[int, list[Image.Image]] = {digit: [] for digit in DIGITS}
    for record, label in zip(images.records, images.labels.tolist(), strict=True):
        if label in found and len(found[label]) < 30:
            cut = cut_out(Image.open(io.BytesIO(record.source)).convert("RGB"))
            if 0.08 < np.asarray(cut)[..., 3].mean() / 255 < 0.5:
                found[label].append(cut)
    return found


def scene(photographs: dict[int, list[Image.Image]], random: np.random.Generator) -> tuple[Image.Image, list[Any]]:
    """A grey wall with two or three signs side by side, and (sign, mask) of each."""
    light = np.linspace(*random.uniform(150, 225, 2), SIZE[0])[None, :] + random.normal(0, 3, (SIZE[1], SIZE[0]))
    wall = Image.fromarray(np.uint8(np.clip(np.stack([light + 2, light, light + 4], -1), 0, 255)), "RGB")
    count = int(random.integers(2, 4))
    masks = []
    for place in range(count):
        sign = int(random.integers(len(DIGITS)))
        choice = photographs[DIGITS[sign]]
        side = int(random.integers(56, 96) if count == 2 else random.integers(52, 70))
        hand = choice[int(random.integers(len(choice)))].resize((side, side))
        middle = SIZE[0] * (place + 0.5) / count
        corner = (int(middle - side / 2 + random.integers(-4, 5)), int(random.integers(4, SIZE[1] - side - 4)))
        wall.paste(hand, corner, hand)
        mask = Image.new("L", SIZE)
        mask.paste(hand.getchannel("A"), corner)
        masks.append((sign, np.asarray(mask) > 127))
    return wall, masks


def make_data(work: Path) -> None:
    """Scenes with masks: value 0 is the wall, 1 to 3 are the signs."""
    for seed, (part, count) in enumerate(PARTS.items()):
        random, photographs = np.random.default_rng(seed), hands("train" if part != "test" else "test")
        for number in range(count):
            picture, masks = scene(photographs, random)
            labels = np.zeros(SIZE[::-1], dtype=np.uint8)
            for sign, mask in masks:
                labels[mask] = sign + 1
            save(picture, work / "images" / part / f"{number:03}.png")
            save(Image.fromarray(labels), work / "masks" / part / f"{number:03}.png")
    write_text(work / "classes.txt", "0 wall\n" + "".join(f"{i + 1} {name}\n" for i, name in enumerate(SIGNS)))


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def segmented(work: Path) -> Image.Image:
    """The answer of a model to the first test scene, as `vitrail predict --out` draws it."""
    run, source = work / "run", work / "scenes/images/test/000.png"
    if not (run / "model.safetensors").exists():
        vitrail.train(work / "scenes", task="segmentation", run=run, overwrite=run.exists(), **SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        predict_run(vitrail.open_run(run), [source], pictures=Path(folder))
        return Image.open(Path(folder) / source.name).convert("RGB")


def row(pictures: dict[str, Image.Image]) -> Image.Image:
    """Pictures side by side, each with its name below."""
    gap, strip = 8, 22
    whole = Image.new("RGB", (len(pictures) * (CELL[0] + gap) - gap, CELL[1] + strip), "white")
    for place, (name, picture) in enumerate(pictures.items()):
        left = place * (CELL[0] + gap)
        whole.paste(ImageOps.fit(picture.convert("RGB"), CELL, Image.Resampling.LANCZOS), (left, 0))
        middle = (left + CELL[0] // 2, CELL[1] + strip // 2)
        ImageDraw.Draw(whole).text(middle, name, fill="black", anchor="mm", font_size=15)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    if not (work / "scenes/classes.txt").exists():
        make_data(work / "scenes")
    pictures = {"detection": Image.open(DOCS / "pictures/cells-dfine.jpg"), "segmentation": segmented(work)}
    pictures["generation"] = Image.open(DOCS / "results/generation.png").crop(MADE)
    row(pictures).save(DOCS / "pictures/tasks.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main()
