"""What somebody meant who typed an option or a verb that does not exist: by meaning first, then by spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from vitrail.core.synonyms import nearest_names, plain

FOLLOWS: Mapping[str, str] = {
    "num-classes nc n-classes classes class-names": "the classes follow from the data, or from the run",
    "opset opset-version": "Vitrail chooses the opset of an ONNX file, which its record names",
    "simplify onnxsim": "files are written as simple as they can be",
    "optimizer optim opt momentum": "training uses AdamW; its options are --learning-rate and --weight-decay",
    "iou iou-thres nms": "a detector is trained with it: vitrail train --task detection --option.nms_threshold 0.5",
    "head neck decoder": "it is an option of the task: vitrail train --task TASK --option.head NAME",
    "replace-head new-head reset-head": "vitrail train replaces a classifier that does not fit by a new one",
    "in-chans in-channels channels ch": "the number of channels follows from the model",
    "version": "write vitrail --version",
}
"""What other tools ask for -> why there is no such option."""

VERBS_MEANT: Mapping[str, str] = {
    "train": "fit finetune fine-tune learn training",
    "pretrain": "ssl self-supervised",
    "check": "audit inspect clean lint dedupe duplicates verify-data stats",
    "evaluate": "eval test val validate validation score metrics",
    "predict": "infer inference detect classify segment apply track",
    "quantize": "quantise quant ptq quantization calibrate compress",
    "export": "convert onnx save deploy tflite coreml",
    "bench": "benchmark latency speed profile time measure",
    "models": "list ls model zoo info list-models",
    "check-model": "contract verify conformance validate-model test-model",
    "explain": "gradcam grad-cam attention visualize visualise interpret",
    "report": "html page summary",
    "tune": "hpo optuna search hyperparameters sweep optimize optimise grid",
    "compare": "ablate experiment",
    "run": "all pipeline auto",
    "demo": "example quickstart tutorial hello",
}
"""Verb -> what other tools call it."""


def suggest_verb(word: str, verbs: Iterable[str]) -> str:
    """The remedy for a verb that does not exist."""
    known, wanted = list(verbs), plain(word)
    close = [verb for verb in known if wanted in VERBS_MEANT.get(verb, "").split()]
    close = close or difflib.get_close_matches(wanted, known, n=2)
    return f"did you mean {' or '.join(close)}?" if close else f"the verbs are {', '.join(known)}"


def suggest_option(word: str, verb: str, options: Mapping[str, Sequence[str]]) -> str:
    """The remedy for an option that a verb does not have.

    Args:
        word: the option as it was typed.
        verb: the verb.
        options: verb -> names of its options.
    """
    if close := nearest_names(word, options[verb]):
        return f"did you mean {' or '.join(close[:2])}?"
    wanted = plain(word)
    if reason := next((text for words, text in FOLLOWS.items() if wanted in words.split()), None):
        return reason
    see = f"'vitrail {verb} --help' lists the options of {verb}"
    if close := nearest_names(word, [name for known in options.values() for name in known], cutoff=1):
        elsewhere = [other for other, known in options.items() if close[0] in known]
        return f"{close[0]} is an option of {', '.join(elsewhere)}; {see}"
    return see
