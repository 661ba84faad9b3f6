"""docs/data-formats.md: every folder of the page is made, its command is run until learning begins, and what was read
is what the page says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from docs.blocks import ROOT
from PIL import Image

from vitrail.cli.main import main
from vitrail.runs import train as training
from vitrail.runs.run import Run

PAGE = (ROOT / "docs/data-formats.md").read_text()
SECTIONS = {
    part.partition("\n")[0].strip("# "): part for part in re.split(r"(?m)^(?=#{2,3} )", PAGE) if "```sh" in part
}
TREE = re.compile(r"```text\n(\S+)/\n((?:  \S+\n)+)```")
SHOWN = re.compile(r"<!-- test: file (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
HIDDEN = re.compile(r"<!-- file (\S+)\n(.*?)-->", re.DOTALL)
COCO = re.compile(r"<!-- coco (\S+) (.*?) -->")
READ = re.compile(
    r"^Read: (?:no classes|(?:classes|keypoints) (.*?)); (\d+) train, (\d+) val, (\d+) test\.$", re.MULTILINE
)
SIZE = (48, 32)
"""Width and height of every image."""

KEYPOINTS = ["left_ear", "right_ear", "nose"]
SMALL = "--model edgevit_nano_stride2 --image-size 32 --epochs 1 --batch-size 2 --num-workers 0 --accelerator cpu"


def coco(names: list[str]) -> tuple[str, str]:
    """An object an image with box and polygon, of two classes in turn; the same of one class with keypoints."""
    thing = {"bbox": [4, 6, 20, 16], "area": 320, "iscrowd": 0, "segmentation": [[4, 6, 24, 6, 24, 22, 4, 22]]}
    points = {"keypoints": [6, 8, 2, 20, 8, 2, 12, 18, 2], "num_keypoints": 3}
    values = {
        "images": [{"id": i, "file_name": n, "width": SIZE[0], "height": SIZE[1]} for i, n in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "category_id": 3 + i % 2} | thing for i in range(len(names))],
        "categories": [{"id": 3, "name": "car"}, {"id": 4, "name": "bus"}],
    }
    return json.dumps(values), json.dumps(
        values
        | {
            "annotations": [one | points | {"category_id": 3} for one in values["annotations"]],
            "categories": [{"id": 3, "name": "mouse", "keypoints": KEYPOINTS, "skeleton": []}],
        }
    )


def voc(name: str, label: str) -> str:
    box = "<bndbox><xmin>4</xmin><ymin>6</ymin><xmax>24</xmax><ymax>22</ymax></bndbox>"
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}<object><name>{label}</name>{box}</object></annotation>"


def make(section: str, where: Path) -> None:
    """The folder that a section shows, with the contents that it shows or that its comments hold."""
    (root, tree) = TREE.search(section).groups()
    texts = dict(SHOWN.findall(section)) | dict(HIDDEN.findall(section))
    for name, images in COCO.findall(section):
        texts[name] = coco(images.split())["keypoints" in name]
    for word, suffix in (("labels", ".txt"), ("voc", ".xml")):
        if found := re.search(rf"<!-- {word} (\S+) (\S+) -->", section):
            files = [line.strip() for line in tree.splitlines() if line.strip().endswith(suffix)]
            for number, file in enumerate(one for one in files if f"{root}/{one}" not in texts):
                label = found[1 + number % 2]
                texts[f"{root}/{file}"] = (
                    voc(f"{Path(file).stem}.jpg", label) if word == "voc" else f"{label} .5 .5 .4 .4\n"
                )
    for number, line in enumerate(tree.splitlines()):
        path = where / root / line.strip()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix not in (".jpg", ".png"):
            path.write_text(texts.pop(f"{root}/{line.strip()}"))
        elif path.suffix == ".png":
            Image.fromarray(np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[::-1]) % 2).save(path)
        else:
            Image.new("RGB", SIZE, (37 * number % 256, 91, 11 * number)).save(path)
    assert not texts, "the tree of the section lacks these files"


def stop(*_given: object, **_named: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("title", SECTIONS)
def test_a_folder_is_read_as_the_page_says(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = SECTIONS[title]
    make(section, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "fit_task", stop)  # all that comes before is real
    (command,) = re.findall(r"```sh\n(.*?)\n```", section)
    words = shlex.split(command)
    assert words[0] == "vitrail"
    head = "--option.head retinanet" if "detection" in command else ""
    assert main([*words[1:], *SMALL.split(), *head.split()]) == 130, capsys.readouterr().err
    run = Run(tmp_path / words[-1]).read()
    wanted = READ.search(section)
    names = re.findall("`(.*?)`", wanted[1] or "")
    kept = run.data
    assert (kept.num_train, kept.num_val, kept.num_test) == tuple(map(int, wanted.groups()[1:]))
    assert list(run.classes) == names
    assert not kept.skipped


def test_every_section_with_a_folder_has_a_command_and_says_what_is_read() -> None:
    assert PAGE.count("```text\n") - len(re.findall(r"<!-- test: file \S+ -->\n```text", PAGE)) == len(SECTIONS)
    assert len(READ.findall(PAGE)) == len(SECTIONS) > 12
