"""From an image to an answer in words, for programs in other languages: files hold it, and docs/exporting.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PIXELS = """
Decode the first frame to RGB of 8 bits, upright by its EXIF orientation (not XMP's), with transparency on white and
grey of 16 bits divided by 257.
"""
RESIZE = """
Resizing is antialiased (the kernel is as wide as the picture shrinks), columns first, each pass rounded to 8 bits;
round takes halves to the even number; a centre begins at round((whole - part) / 2).
"""
NORMALISE = """
The input is (pixels / 255 - mean) / std for each channel, float32, (1, 3, H, W).
"""
FRAMES = {
    "crop": """
With a picture of (h, w) and image_size (H, W), s is the larger of round(H / crop_fraction) / h and round(W /
crop_fraction) / w, but at most the largest of 1, H / h and W / w. Cut the centre, at most round(8 max(H, W) / s)
pixels a side; resize it, of (h', w') now, to round(h' s), round(w' s), at least H, W; cut the centre of H x W.
""",
    "letterbox": """
With a picture of (h, w) and image_size (H, W), s is the smaller of H / h and W / w. Resize to round(h s), round(w s),
at least 1, and put it at the top left of H x W; the rest is round(255 mean).
""",
    "view": """
With the object's box or the whole picture of (h, w) and image_size (H, W), s is the smaller of H / (1.25 h) and W /
(1.25 w); where s is below 1, resize the picture of (h', w') to round(h' s), round(w' s), at least 1, bilinearly, and
places in it likewise. The pixel at column x shows what lies (x + 0.5 - W / 2) / s right of the box's middle, in
pixels of the picture before, bilinearly; rows likewise; outside of the picture lies 255 mean.
""",
}
OBJECTS = """
A row is left, top, right, bottom as shares of the frame, then a logit for each class; its sigmoid is a probability.
Keep probabilities from min_confidence on, clip boxes to the picture, drop those with a side of at most half a pixel,
and take the 1000 most probable. From the most probable on, drop boxes of the same class whose intersection over union
is above nms_threshold (none where it is null); keep max_objects. Pixels of the picture are shares of H and W, divided
by how much the picture was resized.
"""
MASKS = """
The rest of a row is 28 x 28 logits of a mask: their sigmoid with a border of zeros, stretched bilinearly over the box
grown by 30 / 28; the object's pixels are those of one half or more.
"""
ANSWERS = {
    "classification": """
Probabilities are the softmax of the logits.
""",
    "multilabel": """
The probability of a class is the sigmoid of its logit; an image has the classes whose probability is at least their
number in min_confidences, which may be none.
""",
    "aesthetics": """
The output is the share of votes for each score of scale; the answer is their mean.
""",
    "segmentation": """
Take the softmax over classes, cut the padding off, and resize it to the picture bilinearly, without antialiasing; the
largest is the class of a pixel. With inference slide, and with auto where s is below 2 / 3, do so for windows of H x
W that overlap by a third, and take the mean.
""",
    "detection": OBJECTS,
    "instances": OBJECTS + MASKS,
    "pose": """
A keypoint is the largest value of its map, moved by one Newton step, at most a pixel, on the logarithm of the map
blurred by a Gaussian of spread sigma; its score is that value. With flip_test and a mirror order, take the mean with
the maps of the mirror image, mirrored back and reordered by mirror.
""",
    "generation": """
The input is latent_dim normal random numbers, then the class in num_labels numbers of 0 and 1, (1, n, 1, 1); the
picture is (output + 1) * 127.5.
""",
}


OUTLIER_SCORE = """
The second output, {output}, is a number for each image, high for images unlike those of the training; an image with
more than {unusual_above:.6g} is unusual, as one in twenty of the validation images is.
"""


def rule_of(task: Mapping[str, Any]) -> str:
    """What a file says of its input and its output.

    Args:
        task: result of :meth:`vitrail.tasks.Task.decoding`.
    """
    frame = FRAMES.get(task["frame"])
    parts = [PIXELS, frame, RESIZE, NORMALISE] if frame else []
    second = task.get("outlier_score")
    more = [OUTLIER_SCORE.format(**second)] if second else []
    return " ".join(" ".join([*parts, ANSWERS.get(task["name"], ""), *more]).split())
