"""How much of what was planted `vitrail check` finds in flowers17: near copies, and wrong labels.

    python benchmarks/check_data.py --data ../shared/data/flowers17_128 \
        --weights ../shared/data/weights/vit_tiny_patch16_224_augreg_in1k.safetensors --seeds 0 1 2

Near copies: of 400 images drawn by seed, a quarter each is saved again as JPEG (quality 30 to 90), resized (to 0.4 to
2 times its side), mirrored, or cut by 5 % of its sides at a random place; all are saved as JPEG. Parts: 100 images are
cut to 60 to 90 % of their sides. Wrong labels: 5 % of the images get another class, drawn by seed.
docs/results/check.md has what came out.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vitrail.data import DataConfig, load_data
from vitrail.data.check.appearance import look_at
from vitrail.data.check.near_copies import find_near_copies
from vitrail.soundness import CheckConfig, Soundness, check_data

NUM_COPIES = 400
NUM_PARTS = 100
WRONG_SHARE = 0.05
LIST_SHARE = 0.08

Draw = np.random.Generator
Pair = tuple[str, str]


def saved_again(image: Image.Image, draw: Draw) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(draw.integers(30, 91)))
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, draw: Draw) -> Image.Image:
    factor = float(np.exp(draw.uniform(np.log(0.4), np.log(2))))
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def mirrored(image: Image.Image, _: Draw) -> Image.Image:
    return ImageOps.mirror(image)


def cut(image: Image.Image, draw: Draw) -> Image.Image:
    width, height = round(0.95 * image.width), round(0.95 * image.height)
    left, top = (int(draw.integers(0, room + 1)) for room in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


KINDS: dict[str, Callable[[Image.Image, Draw], Image.Image]] = {
    "saved again": saved_again,
    "resized": resized,
    "mirrored": mirrored,
    "cut by 5 %": cut,
}


def plant_copies(root: Path, seed: int) -> dict[Pair, str]:
    """Write copies beside their originals; pairs of names -> kind."""
    draw = np.random.default_rng(seed)
    files = sorted(root.rglob("*.jpg"))
    planted = {}
    for place, index in enumerate(draw.choice(len(files), NUM_COPIES, replace=False).tolist()):
        kind, file = list(KINDS)[place % len(KINDS)], files[index]
        copy = file.with_name(f"{file.stem}-copy.jpg")
        with Image.open(file) as image:
            KINDS[kind](image.convert("RGB"), draw).save(copy, "JPEG", quality=88)
        planted[pair_of(file.relative_to(root).as_posix(), copy.relative_to(root).as_posix())] = kind
    return planted


def pair_of(first: str, second: str) -> Pair:
    return (first, second) if first < second else (second, first)


def near_pairs(root: Path) -> tuple[set[Pair], float]:
    """Pairs that are found, and seconds of the search (decoding aside)."""
    data = load_data(DataConfig(path=str(root), val_fraction=1.0, bad_annotations="skip"))
    looks = look_at(data.choose("all").records, max_pixels=10**8)
    names = list(looks)
    start = time.perf_counter()
    found = find_near_copies(np.array([look.thumbnail for look in looks.values()]))
    return {pair_of(names[one.first], names[one.second]) for one in found}, time.perf_counter() - start


def measure_copies(source: Path, seed: int, own: set[Pair]) -> str:
    """A row of the table: recall of each kind, and pairs that nothing explains."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        shutil.copytree(source, root)
        planted = plant_copies(root, seed)
        found, seconds = near_pairs(root)
    group = groups({*own, *planted})
    unexplained = [pair for pair in found if group.get(pair[0], pair[0]) != group.get(pair[1], pair[1])]
    right = sum(pair in found for pair in planted)
    recalls = []
    for kind in KINDS:
        of_kind = [pair for pair, other in planted.items() if other == kind]
        recalls.append(f"{sum(pair in found for pair in of_kind)}/{len(of_kind)}")
    precision = right / max(right + len(unexplained), 1)
    cells = (seed, *recalls, f"{right / len(planted):.1%}", f"{precision:.1%}", f"{seconds:.1f} s")
    return f"| {' | '.join(map(str, cells))} |"


def measure_parts(source: Path, seed: int, config: CheckConfig, own: set[Pair]) -> str:
    """A row of the table: images cut to 60 to 90 % of their sides, which only features bring together."""
    draw = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        shutil.copytree(source, root)
        files, planted = sorted(root.rglob("*.jpg")), set()
        for index in draw.choice(len(files), NUM_PARTS, replace=False).tolist():
            file = files[index]
            copy = file.with_name(f"{file.stem}-part.jpg")
            with Image.open(file) as image:
                side = round(draw.uniform(0.6, 0.9) * image.width)
                left, top = draw.integers(0, image.width - side + 1, 2).tolist()
                image.crop((left, top, left + side, top + side)).save(copy, "JPEG", quality=88)
            planted.add(pair_of(file.relative_to(root).as_posix(), copy.relative_to(root).as_posix()))
        found = pairs_of(check_data(root, config))
    group = groups({*own, *planted})
    unexplained = [pair for pair in found if group.get(pair[0], pair[0]) != group.get(pair[1], pair[1])]
    copies = {name for pair in planted for name in pair if "-part" in name}
    right = sum(any(name in pair and pair not in unexplained for pair in found) for name in copies)
    precision = right / max(right + len(unexplained), 1)
    return f"| {seed} | {right}/{len(copies)} | {right / len(copies):.1%} | {precision:.1%} |"


def pairs_of(found: Soundness) -> set[Pair]:
    """All copies and near copies that a check names."""
    kinds = [finding for finding in found.findings if "copies" in finding.name or finding.name == "two-labels"]
    return {pair_of(*example.files) for finding in kinds for example in finding.examples}


def groups(pairs: set[Pair]) -> dict[str, str]:
    """Image -> the name of its group: copies of one image are copies of each other."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for first, second in pairs:
        leader[find(first)] = find(second)
    return {name: find(name) for name in leader}


def plant_wrong_labels(root: Path, seed: int) -> set[str]:
    """Move images into folders of other classes; their new names."""
    draw = np.random.default_rng(seed)
    files = sorted(root.rglob("*.jpg"))
    wrong = set()
    for index in draw.choice(len(files), round(WRONG_SHARE * len(files)), replace=False).tolist():
        file = files[index]
        others = sorted(folder for folder in file.parent.parent.iterdir() if folder != file.parent)
        moved = others[int(draw.integers(len(others)))] / file.name
        file.rename(moved)
        wrong.add(moved.relative_to(root).as_posix())
    return wrong


def measure_labels(source: Path, seed: int, config: CheckConfig) -> str:
    """A row of the table: planted labels among the first 8 % of the list, and among those that are called wrong."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        shutil.copytree(source, root)
        wrong = plant_wrong_labels(root, seed)
        found = check_data(root, config)
    files = [doubt.file for doubt in found.relabel]
    first = files[: round(LIST_SHARE * found.understood.num_images)]
    listed = sum(file in wrong for file in first)
    finding = found.find("wrong-labels")
    named = [example.files[0] for example in finding.examples] if finding is not None else []
    hits = sum(file in wrong for file in named)
    cells = (
        *(seed, len(wrong), f"{listed} ({listed / len(wrong):.1%})", len(files)),
        *(len(named), f"{hits / len(wrong):.1%}", f"{hits / max(len(named), 1):.1%}"),
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", help="without them only near copies are measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    own, _ = near_pairs(args.data)
    print(f"{args.data.name} has {len(own)} pairs of near copies of its own\n")
    print(f"| seed | {' | '.join(KINDS)} | recall | precision | search |\n|{'---|' * 8}")
    for seed in args.seeds:
        print(measure_copies(args.data, seed, own), flush=True)
    if args.weights is None:
        return
    half = (0.5,)
    config = CheckConfig(model="vit_tiny_patch16", weights=args.weights, mean=half, std=half)
    own |= pairs_of(check_data(args.data, config))
    print(f"\nWith features it has {len(own)} pairs of its own\n")
    print(f"| seed | parts of images | recall | precision |\n|{'---|' * 4}")
    for seed in args.seeds:
        print(measure_parts(args.data, seed, config, own), flush=True)
    print("\n| seed | planted | in the first 8 % | listed | called wrong | recall | precision |")
    print(f"|{'---|' * 7}")
    for seed in args.seeds:
        print(measure_labels(args.data, seed, config), flush=True)


if __name__ == "__main__":
    main()
