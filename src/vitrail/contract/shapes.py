"""Promises on shapes and names, checked on the meta device: the largest model costs nothing."""

from __future__ import annotations

import torch

from vitrail.contract.promise import Make, images_for, meta_model, need_shape, promised


def levels_are_as_announced(make: Make) -> None:
    """``feature_info`` and ``num_features`` are true to what the model computes, and names lead to its parts."""
    model = meta_model(make)
    images = images_for(model)
    height, width = model.config.image_size
    final, maps = model.forward_intermediates(images)
    promised(len(model.feature_info) > 0, "feature_info is empty; give at least one level")
    told = f"forward_stages yields {len(maps)} levels, and feature_info has {len(model.feature_info)}"
    promised(len(maps) == len(model.feature_info), told)
    known = {name for name, _ in model.named_modules()}
    for info, level in zip(model.feature_info, maps, strict=True):
        shape = (2, info.channels, -(-height // info.stride), -(-width // info.stride))
        need_shape(f"level '{info.name}' as a map", level, shape)
        promised(info.name in known, f"feature_info names '{info.name}', and the model has no such module")
    need_shape("forward_features", model.forward_features(images), tuple(final.shape))
    need_shape("forward_head(pre_logits=True)", model.forward_head(final, pre_logits=True), (2, model.num_features))
    need_shape("the output", model(images), (2, model.num_classes))


def names_of_parameters_are_true(make: Make) -> None:
    """``no_weight_decay``, ``layer_groups`` and ``head_prefixes`` name parameters that exist."""
    model = meta_model(make)
    parameters = dict(model.named_parameters())
    unknown = sorted(model.no_weight_decay() - parameters.keys())
    promised(not unknown, f"no_weight_decay names '{', '.join(unknown)}', and there is no such parameter")
    groups = [prefix for group in model.layer_groups() for prefix in group]
    for prefix in groups:
        found = any(name.startswith(prefix) for name in parameters)
        promised(found, f"layer_groups names '{prefix}', and no parameter begins with it")
    head = [name for name in parameters if name.startswith(model.head_prefixes)]
    promised(bool(head), f"no parameter begins with {' or '.join(model.head_prefixes)}; call the classifier head")
    both = sorted(set(head) & {name for name in parameters if name.startswith(tuple(groups))})
    promised(not both, f"'{', '.join(both)}' belongs to the head and to a group of layer_groups")


def classifier_can_be_changed(make: Make) -> None:
    """Another number of classes, or none, as ``num_classes`` and by ``reset_classifier``."""
    model = meta_model(make)
    images = images_for(model)
    model.reset_classifier(7)
    need_shape("the output after reset_classifier(7)", model(images), (2, 7))
    promised(model.num_classes == 7, f"num_classes is {model.num_classes} after reset_classifier(7)")
    model.reset_classifier(0)
    need_shape("the output after reset_classifier(0)", model(images), (2, model.num_features))
    bare = meta_model(make, num_classes=0)
    need_shape("the output with num_classes=0", bare(images), (2, bare.num_features))


def rebuilds_from_its_config(make: Make) -> None:
    """``type(model)(model.config)`` has the same parameters."""
    model = meta_model(make, num_classes=5)
    with torch.device("meta"):
        twin = type(model)(model.config)
    ours, theirs = ({name: tuple(x.shape) for name, x in one.state_dict().items()} for one in (model, twin))
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    promised(not differing, f"type(model)(model.config) differs in {', '.join(differing[:3])}")
