"""Vitrail: from a folder of images to a vision transformer measured on the device that will run it."""

from vitrail.models import create_model, list_models, load_checkpoint

__version__ = "0.1.0"

__all__ = ["__version__", "create_model", "list_models", "load_checkpoint"]
