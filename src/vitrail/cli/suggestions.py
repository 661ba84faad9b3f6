"""What somebody meant who typed an option or a verb that does not exist: by meaning first, then by spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

MEANT: Mapping[str, str] = {
    "--learning-rate": "lr lr0 base-lr max-lr initial-lr learning-rate-init eta",
    "--batch-size": "bs b batch batchsize mini-batch train-batch-size per-device-train-batch-size samples-per-gpu",
    "--image-size": "imgsz img-size imgsize img input-size resolution size crop-size image-resolution train-size",
    "--epochs": "epoch num-epochs n-epochs nepochs max-epochs num-train-epochs iterations steps max-steps",
    "--weight-decay": "wd decay l2 weight-decay-rate",
    "--layer-decay": "llrd lr-decay layer-wise-decay freeze frozen freeze-layers freeze-backbone",
    "--warmup-epochs": "warmup warmup-steps warmup-ratio warm-up scheduler lr-scheduler sched cos-lr lrf",
    "--drop-path-rate": "drop-path dropout drop stochastic-depth",
    "--label-smoothing": "smoothing label-smooth",
    "--ema-decay": "ema model-ema use-ema",
    "--gradient-clip": "clip-grad grad-clip clip max-grad-norm gradient-clip-val clip-norm",
    "--keep": "patience early-stopping early-stop save-best save-best-only",
    "--precision": "amp fp16 bf16 half mixed-precision dtype float16 bfloat16",
    "--accelerator": "cuda cpu gpu mps device use-gpu",
    "--devices": "gpus gpu ngpus num-gpus n-gpus gpu-ids device nproc-per-node",
    "--num-nodes": "nodes nnodes",
    "--strategy": "ddp dist distributed fsdp",
    "--num-workers": "workers num-worker n-workers j dataloader-num-workers jobs",
    "--seed": "random-seed manual-seed random-state",
    "--split-seed": "data-seed",
    "--val-fraction": "val-split validation-split val-size test-size split val-ratio holdout",
    "--max-bad-fraction": "skip-broken ignore-errors skip-corrupt",
    "--hflip": "fliplr flip horizontal-flip hflip-prob mirror",
    "--random-resized-crop-scale": "scale crop-scale crop-range",
    "--rand-augment-magnitude": "aa auto-augment autoaugment randaugment augment augmentation",
    "--random-erasing": "erasing reprob cutout random-erase",
    "--mixup-alpha": "mixup mix",
    "--cutmix-alpha": "cutmix",
    "--crop-fraction": "crop-pct center-crop crop",
    "--model": "arch architecture backbone net network model-name cfg variant",
    "--weights": "ckpt checkpoint pretrained weight pretrained-weights initial-checkpoint init-weights load finetune "
    "fine-tune model-path",
    "--data": "dataset data-dir data-path datadir images root source input train-dir folder path d",
    "--run": "output output-dir out out-dir save-dir project name exp experiment logdir workdir work-dir save "
    "save-path o runs model-dir",
    "--out": "output output-dir out-dir save-dir save save-path to o dest destination project name",
    "--resume": "continue resume-from restart",
    "--overwrite": "exist-ok force f clobber overwrite-output",
    "--task": "problem mode type",
    "--calibration": "num-images num-samples calib calib-size calibration-samples calibration-images nsamples "
    "n-samples num-calibration-images calib-data data",
    "--bits": "weight-bits w-bits wbits num-bits bit int8 int4 precision half dtype fp16 quantize",
    "--activation-bits": "a-bits abits act-bits",
    "--keep-float": "exclude skip skip-layers nodes-to-exclude op-types-to-exclude ignore exclude-layers",
    "--preset": "method algorithm mode scheme config-preset",
    "--smoothing": "smoothquant smooth-quant",
    "--format": "formats include target backend engine to type output-format",
    "--dynamic-size": "dynamic dynamic-axes dynamic-shape dynamic-shapes dynamic-batch",
    "--num-images": "num-samples samples verify-images count n",
    "--top-k": "topk k max-det max-detections conf confidence conf-thres conf-threshold score-thr score-threshold "
    "threshold top5",
    "--min-confidence": "conf confidence conf-thres conf-threshold score-thr score-threshold threshold",
    "--max-detections": "max-det max-dets limit",
    "--csv": "save-txt save-csv to-csv output-format",
    "--json": "save-json to-json output-format format",
    "--count": "num-images num-samples samples n number",
    "--runtimes": "provider providers backend backends engine engines framework runtime ep execution-provider",
    "--threads": "num-threads n-threads intra-op-threads nthreads t cpu-threads",
    "--min-runs": "repeat repeats runs iters num-runs n-runs iterations num-iters n-iter loops count",
    "--warmup-runs": "warmup warm-up num-warmup warmup-iters",
    "--energy": "power meter watts",
    "--device": "target on",
    "--max-latency-ms": "latency max-latency latency-ms target-latency",
    "--max-size-mb": "size max-size size-mb",
    "--min-accuracy": "accuracy min-acc acc",
    "--max-memory-mb": "memory ram max-memory",
    "--robustness": "robust corruptions imagenet-c tta",
    "--mean": "norm-mean image-mean",
    "--std": "norm-std image-std",
    "--interpolation": "resample resize-mode interp",
    "--config": "cfg yaml config-file hyp hparams c",
    "--print-config": "show-config dump-config dry-run",
    "--debug": "verbose v traceback",
    "--quiet": "silent s no-progress",
    "--objective": "method loss",
    "--shard": "split part",
    "--references": "published baseline baselines",
    "--plot": "figure chart out",
    "--open": "show browser",
}
"""Option -> what other tools, and people, call it."""

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
    "evaluate": "eval test val validate validation score metrics",
    "predict": "infer inference detect classify segment apply track",
    "quantize": "quantise quant ptq quantization calibrate compress",
    "export": "convert onnx save deploy tflite coreml",
    "bench": "benchmark latency speed profile time measure",
    "models": "list ls model zoo info list-models",
    "explain": "gradcam grad-cam attention visualize visualise interpret",
    "report": "html page summary",
    "compare": "sweep ablate experiment",
    "run": "all pipeline auto",
    "demo": "example quickstart tutorial hello",
}
"""Verb -> what other tools call it."""


def suggest_verb(word: str, verbs: Iterable[str]) -> str:
    """The remedy for a verb that does not exist."""
    plain = _plain(word)
    known = list(verbs)
    close = [verb for verb in known if plain in VERBS_MEANT.get(verb, "").split()]
    close = close or difflib.get_close_matches(plain, known, n=2)
    return f"did you mean {' or '.join(close)}?" if close else f"the verbs are {', '.join(known)}"


def suggest_option(word: str, verb: str, options: Mapping[str, Sequence[str]]) -> str:
    """The remedy for an option that a verb does not have.

    Args:
        word: the option as it was typed.
        verb: the verb.
        options: verb -> names of its options.
    """
    plain, own = _plain(word), options[verb]
    if close := _meant(plain, own) or _spelt(plain, own):
        return f"did you mean {' or '.join(close[:2])}?"
    if reason := next((text for words, text in FOLLOWS.items() if plain in words.split()), None):
        return reason
    see = f"'vitrail {verb} --help' lists the options of {verb}"
    for names in ([f"--{plain}"], _meant(plain, [name for known in options.values() for name in known])):
        if elsewhere := [other for other, known in options.items() if names and names[0] in known]:
            return f"{names[0]} is an option of {', '.join(elsewhere)}; {see}"
    return see


def _plain(word: str) -> str:
    return word.partition("=")[0].strip("-").replace("_", "-").lower()


def _meant(plain: str, own: Sequence[str]) -> list[str]:
    """Options of that meaning; the same letters without hyphens count as the same word."""
    same = [name for name in own if name.strip("-").replace("-", "") == plain.replace("-", "")]
    return same or list(dict.fromkeys(name for name in own if plain in MEANT.get(name, "").split()))


def _spelt(plain: str, own: Sequence[str]) -> list[str]:
    by_word = {name.strip("-"): name for name in own}
    return [by_word[found] for found in difflib.get_close_matches(plain, by_word, n=2, cutoff=0.75)]
