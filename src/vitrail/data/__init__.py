"""Images, from a path to batches: ``formats`` reads files and gives records, ``check`` finds what is unsound,
``sets`` are what training and evaluation iterate, ``pixels`` decodes and changes images, ``loading`` joins them."""

from vitrail.data.data_config import DataConfig, check_pixel_range
from vitrail.data.formats.coco_shapes import require_pycocotools
from vitrail.data.formats.layout import find_images, left_out
from vitrail.data.loading.annotated import load_boxes, load_instances, load_keypoints, load_scores
from vitrail.data.loading.batches import (
    Order,
    TrainLoader,
    balanced_order,
    calibration_images,
    eval_loader,
    train_loader,
)
from vitrail.data.loading.images import load_data
from vitrail.data.loading.many_labels import load_labels
from vitrail.data.loading.masks import load_masks
from vitrail.data.loading.pictures import load_pictures
from vitrail.data.mirror import mirror_order
from vitrail.data.pixels.augment import CHOSEN_AUGMENT, AugmentConfig, ResolvedAugment
from vitrail.data.pixels.decode import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    decode_image,
    image_size_of,
    libjpeg_words,
    pixels_of,
)
from vitrail.data.pixels.fit import fit_image
from vitrail.data.pixels.letterbox import Letterbox
from vitrail.data.pixels.view import View
from vitrail.data.records import IGNORE, LabelledImage, MultiLabelImage, Record
from vitrail.data.sets.box_set import BoxSet, InstanceSet
from vitrail.data.sets.image_set import ImageSet, PictureSet
from vitrail.data.sets.keypoint_set import KeypointSet
from vitrail.data.sets.mask_set import MaskSet
from vitrail.data.sets.multilabel_set import MultiLabelSet
from vitrail.data.sets.samples import Samples, draw_order
from vitrail.data.sets.score_set import ScoreSet
from vitrail.data.sets.splits import DataSplits

__all__ = [
    "CHOSEN_AUGMENT",
    "IGNORE",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "AugmentConfig",
    "BoxSet",
    "DataConfig",
    "DataSplits",
    "ImageSet",
    "InstanceSet",
    "KeypointSet",
    "LabelledImage",
    "Letterbox",
    "MaskSet",
    "MultiLabelImage",
    "MultiLabelSet",
    "Order",
    "PictureSet",
    "Record",
    "ResolvedAugment",
    "Samples",
    "ScoreSet",
    "TrainLoader",
    "View",
    "balanced_order",
    "calibration_images",
    "check_pixel_range",
    "decode_image",
    "draw_order",
    "eval_loader",
    "find_images",
    "fit_image",
    "image_size_of",
    "left_out",
    "libjpeg_words",
    "load_boxes",
    "load_data",
    "load_instances",
    "load_keypoints",
    "load_labels",
    "load_masks",
    "load_pictures",
    "load_scores",
    "mirror_order",
    "pixels_of",
    "require_pycocotools",
    "train_loader",
]
