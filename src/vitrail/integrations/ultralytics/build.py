"""Registration, and a YOLO from a model file."""

from __future__ import annotations

import os
from typing import Any

from vitrail.core.extras import import_extra
from vitrail.integrations.ultralytics.backbone import VitrailBackbone
from vitrail.integrations.ultralytics.model_file import find_model_file


def register() -> None:
    """Let YOLO model files name ``VitrailBackbone``; a second call changes nothing.

    Raises:
        MissingDependencyError: ultralytics is not installed.
    """
    tasks = import_extra("ultralytics.nn.tasks", "ultralytics", "yolo")
    # its parser looks modules up among the global names of this file, and offers no other way
    tasks.VitrailBackbone = VitrailBackbone


def build(name: str, *, verbose: bool = False) -> Any:
    """An ``ultralytics.YOLO`` detector, untrained.

    Args:
        name: the name of a model file of Vitrail's, or the path of any.
        verbose: print the table of layers.

    Raises:
        MissingDependencyError: ultralytics is not installed.
        UnknownNameError: there is no such file.
    """
    path = find_model_file(name)
    register()
    from ultralytics import YOLO

    return YOLO(path, task="detect", verbose=verbose)


def stay_offline() -> None:
    """No attempt of ultralytics to reach the network or to install packages, unless the environment says otherwise;
    takes effect before it is imported for the first time."""
    os.environ.setdefault("YOLO_OFFLINE", "1")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
