"""Every pyramid family as the backbone of an ultralytics YOLO: docs/yolo.md.

ultralytics is licensed under AGPL-3.0, which also binds programs that are built with it and services that run it. It is
an optional extra, imported when these functions are called; nothing else in Vitrail imports it.
"""

from vitrail.integrations.ultralytics.backbone import VitrailBackbone
from vitrail.integrations.ultralytics.build import build, register
from vitrail.integrations.ultralytics.dataset import write_dataset
from vitrail.integrations.ultralytics.model_file import find_model_file, list_model_files, write_model_file

__all__ = [
    "VitrailBackbone",
    "build",
    "find_model_file",
    "list_model_files",
    "register",
    "write_dataset",
    "write_model_file",
]
