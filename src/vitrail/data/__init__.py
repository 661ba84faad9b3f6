"""Images: found, checked, decoded, split, augmented, batched."""

from vitrail.data.boxes import BoxSet, load_boxes
from vitrail.data.coco_masks import IGNORE
from vitrail.data.decode import IMAGE_SUFFIXES, MAX_PIXELS, decode_image
from vitrail.data.image_set import ImageSet
from vitrail.data.instances import InstanceSet, load_instances
from vitrail.data.keypoints import KeypointSet, View, has_mirror, load_keypoints, mirror_order
from vitrail.data.letterbox import Letterbox
from vitrail.data.listing import find_images
from vitrail.data.load import DataConfig, load_data
from vitrail.data.loaders import TrainLoader, calibration_images, eval_loader, train_loader
from vitrail.data.masks import MaskSet, load_masks
from vitrail.data.pictures import PictureSet, load_pictures
from vitrail.data.samples import Samples
from vitrail.data.scores import Opinion, ScoreSet, load_scores
from vitrail.data.splits import DataSplits
from vitrail.data.transforms import AugmentConfig, fit_image

__all__ = [
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
    "Letterbox",
    "MaskSet",
    "Opinion",
    "PictureSet",
    "Samples",
    "ScoreSet",
    "TrainLoader",
    "View",
    "calibration_images",
    "decode_image",
    "eval_loader",
    "find_images",
    "fit_image",
    "has_mirror",
    "load_boxes",
    "load_data",
    "load_instances",
    "load_keypoints",
    "load_masks",
    "load_pictures",
    "load_scores",
    "mirror_order",
    "train_loader",
]
