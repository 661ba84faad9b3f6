"""Scores and votes: what is understood, and what is told about the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.data import DataConfig, load_scores


def write(root: Path, text: str, images: int = 4, table: str = "scores.csv") -> DataConfig:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for i in range(images):
        pixels = np.random.default_rng(i).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.jpg")
    (root / table).write_text(text)
    return DataConfig(path=str(root), val_fraction=0.25)


def test_means_with_their_scale(tmp_path: Path) -> None:
    rows = "0.jpg,train,2.25\n1.jpg,train,9\n2.jpg,val,1\n3.jpg,test,4.5\n"
    data = load_scores(write(tmp_path, "image,split,mean_score_1_to_9\n" + rows))
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (2, 1, 1)
    assert data.train.scale == tuple(range(1, 10))
    target = data.train.target(0)
    assert target["distribution"].tolist() == [0, 0.75, 0.25, 0, 0, 0, 0, 0, 0]
    assert float(target["distribution"] @ torch.tensor(data.train.scale)) == float(target["score"]) == 2.25
    assert data.train.target(1)["distribution"][-1] == 1
    batch = data.train.collate([data.train.target(0), data.train.target(1)])
    assert batch["score"].tolist() == [2.25, 9]
    assert batch["distribution"].shape == (2, 9)


def test_votes_alone_and_with_a_mean(tmp_path: Path) -> None:
    votes = "image,votes_1,votes_2,votes_3\n0.jpg,1,0,3\n1.jpg,4,0,0\n2.jpg,0,1,0\n3.jpg,1,1,1\n"
    data = load_scores(write(tmp_path, votes))
    every = {data.train.names[i]: data.train.target(i) for i in range(len(data.train))}
    every |= {data.val.names[i]: data.val.target(i) for i in range(len(data.val))}
    assert every["images/0.jpg"]["score"] == 2.5
    assert every["images/0.jpg"]["distribution"].tolist() == [0.25, 0, 0.75]
    both = "image,score,votes_1,votes_2,votes_3\n0.jpg,2.6,1,0,3\n1.jpg,1,4,0,0\n2.jpg,2,0,1,0\n3.jpg,2,1,1,1\n"
    data = load_scores(write(tmp_path, both))
    found = [part.target(i) for part in (data.train, data.val) for i in range(len(part))]
    (first,) = [target for target in found if target["score"] == pytest.approx(2.6)]
    assert first["distribution"].tolist() == [0.25, 0, 0.75], "the mean that is given wins, the votes stay"


def test_tables_in_other_forms(tmp_path: Path) -> None:
    text = "\ufeffFile Name;Subset;Score 1 to 9\r\n0.jpg;Train;2.25\r\n.\\1.jpg;train;9\r\nimages\\2.jpg;Valid;1\r\n"
    data = load_scores(write(tmp_path, text))
    assert (data.train.names, data.val.names) == (["images/0.jpg", "images/1.jpg"], ["images/2.jpg"])


def test_wide_scales_are_learnt_in_ten_bins(tmp_path: Path) -> None:
    data = load_scores(write(tmp_path, "image,score_0_to_90\n0.jpg,0\n1.jpg,15\n2.jpg,90\n3.jpg,45\n"))
    assert data.train.scale == tuple(range(0, 91, 10))


def test_the_text_of_ava(tmp_path: Path) -> None:
    lines = ["1 0 0 1 5 17 38 36 15 6 5 1 1 22 1396", "2 1 10 7 15 26 26 21 10 8 1 2 1 21 1396", "", "3 2 " + "1 " * 13]
    data = load_scores(write(tmp_path, "\n".join(lines) + "\n3 3 0 0 0 0 0 0 0 0 0 7 1 1 1\n", table="AVA.txt"))
    assert len(data.train) + len(data.val) == 4
    scores = {
        part.names[i]: float(part.target(i)["score"]) for part in (data.train, data.val) for i in range(len(part))
    }
    counts = [0, 1, 5, 17, 38, 36, 15, 6, 5, 1]
    wanted = sum(n * score for n, score in zip(counts, range(1, 11), strict=True)) / sum(counts)
    assert scores["images/0.jpg"] == pytest.approx(wanted)
    assert scores["images/3.jpg"] == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,score\n0.jpg,11\n1.jpg,2\n", "scores.csv line 2: score 11 is outside of 1 to 10"),
        ("image,score_1_to_9\n0.jpg,3\n1.jpg,0.5\n", r"scores.csv line 3: score 0\.5 is outside of 1 to 9"),
        ("image,score\n0.jpg,good\n1.jpg,2\n", "line 2: score 'good' is not a number"),
        ("image,score\n0.jpg,nan\n1.jpg,2\n", "line 2: score 'nan' is not a number"),
        ("image,score\n0.jpg,\n1.jpg,2\n", "line 2: score '' is not a number"),
        ("image,score\nnone.jpg,3\n1.jpg,2\n", r"line 2: image 'none\.jpg' is missing"),
        ("image,score\n" + "a" * 300 + ".jpg,3\n1.jpg,2\n", r"line 2: image 'a{80}' is missing"),
        ("image,score\n0.jpg\0,3\n1.jpg,2\n", "line 2"),
        ("image,score\n0.jpg,3\n0.jpg,2\n", r"images/0\.jpg: occurs 2 times"),
        ("image,votes_1,votes_2\n0.jpg,0,0\n1.jpg,1,2\n", "line 2: nobody has voted"),
        ("image,votes_1,votes_2\n0.jpg,3,-1\n1.jpg,1,2\n", "line 2: votes 3, -1: none can be below 0"),
        ("image,votes_1,votes_3\n0.jpg,3,1\n1.jpg,1,2\n", r"votes for the scores \[1, 3\]; name every score"),
        ("image,score,split\n0.jpg,3,tset\n1.jpg,2,val\n", "line 2: split 'tset' is not one of"),
        ("image,score,split\n0.jpg,3,train\n1.jpg,2,\n", "line 3: split is empty, others are not"),
        ("image,votes_1,votes_999999999999\n0.jpg,3,1\n", "column votes_999999999999; numbers in .* 9 digits"),
        ("image,votes_1,votes_999999999\n0.jpg,3,1\n", r"votes for the scores \[1, 999999999\]; name every score"),
        (f"image,score_1_to_{'9' * 5000}\n0.jpg,3\n", "numbers in names of columns have up to 9 digits"),
        ("image,votes_1,votes_2\n0.jpg,1e308,1e308\n1.jpg,1,2\n", r"none can be below 0 or above 1e\+09"),
        ("image,votes_1,votes_01\n0.jpg,3,1\n", r"votes for the scores \[1, 1\]; name every score"),
        ("image,score_9_to_1\n0.jpg,3\n1.jpg,2\n", "from 9 to 1; the first number must be the lower"),
        ("image,stars\n0.jpg,3\n", "has the columns image, stars; it needs the columns image and score_LOW_to_HIGH"),
        ("image,score\n", "has no rows"),
        ("image,score\n0.jpg,3\n1.jpg,3\n", "all 2 images of .* have the same score"),
    ],
)
def test_wrong_data_is_told_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_scores(write(tmp_path, text))


def test_images_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    with pytest.raises(DataError, match=r"line 2: image .* lies outside of the folder"):
        load_scores(write(tmp_path / "data", "image,score\n../private.png,3\n1.jpg,2\n"))


def test_wrong_rows_can_be_left_out(tmp_path: Path) -> None:
    text = "image,score\n0.jpg,3\n1.jpg,30\nnone.jpg,4\n2.jpg,5\n3.jpg,6\n"
    config = write(tmp_path, text)
    data = load_scores(DataConfig(path=config.path, bad_annotations="skip", val_fraction=0.3))
    assert len(data.train) + len(data.val) == 3
    assert [reason.split(":")[0] for reason in data.skipped] == ["scores.csv line 3", "scores.csv line 4"]


def test_lines_of_ava_that_say_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"AVA\.txt line 2: 3 numbers; number, image id and ten counts"):
        load_scores(write(tmp_path, "1 0 0 1 5 17 38 36 15 6 5 1 1 22 1396\n2 1 5\n", table="AVA.txt"))
    with pytest.raises(DataError, match=r"neither scores\.csv nor AVA\.txt"):
        load_scores(DataConfig(path=str(tmp_path / "images")))
