"""What a setting is called elsewhere, so that a name that does not exist is answered by meaning."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

MEANT: Mapping[str, str] = {
    "learning-rate": "lr lr0 base-lr max-lr initial-lr learning-rate-init eta",
    "batch-size": "bs b batch batchsize mini-batch train-batch-size per-device-train-batch-size samples-per-gpu",
    "image-size": "imgsz img-size imgsize img input-size resolution size crop-size image-resolution train-size",
    "epochs": "epoch num-epochs n-epochs nepochs max-epochs num-train-epochs iterations steps max-steps",
    "weight-decay": "wd decay l2 weight-decay-rate",
    "layer-decay": "llrd lr-decay layer-wise-decay freeze frozen freeze-layers freeze-backbone",
    "warmup-epochs": "warmup warmup-steps warmup-ratio warm-up scheduler lr-scheduler sched cos-lr lrf",
    "drop-path-rate": "drop-path dropout drop stochastic-depth",
    "label-smoothing": "smoothing label-smooth",
    "ema-decay": "ema model-ema use-ema",
    "gradient-clip": "clip-grad grad-clip clip max-grad-norm gradient-clip-val clip-norm",
    "keep": "patience early-stopping early-stop save-best save-best-only",
    "precision": "amp fp16 bf16 half mixed-precision dtype float16 bfloat16",
    "accelerator": "cuda cpu gpu mps device use-gpu",
    "devices": "gpus gpu ngpus num-gpus n-gpus gpu-ids device nproc-per-node",
    "num-nodes": "nodes nnodes",
    "strategy": "ddp dist distributed fsdp",
    "num-workers": "workers num-worker n-workers j dataloader-num-workers jobs",
    "seed": "random-seed manual-seed random-state",
    "split-seed": "data-seed",
    "val-fraction": "val-split validation-split val-size test-size split val-ratio holdout",
    "max-bad-fraction": "skip-broken ignore-errors skip-corrupt",
    "hflip": "fliplr flip horizontal-flip hflip-prob mirror",
    "random-resized-crop-scale": "scale crop-scale crop-range",
    "rand-augment-magnitude": "aa auto-augment autoaugment randaugment augment augmentation",
    "random-erasing": "erasing reprob cutout random-erase",
    "mixup-alpha": "mixup mix",
    "cutmix-alpha": "cutmix",
    "crop-fraction": "crop-pct center-crop crop",
    "model": "arch architecture backbone net network model-name cfg variant",
    "weights": "ckpt checkpoint pretrained weight pretrained-weights initial-checkpoint init-weights load finetune "
    "fine-tune model-path",
    "data": "dataset data-dir data-path datadir images root source input train-dir folder path d",
    "run": "output output-dir out out-dir save-dir project name exp experiment logdir workdir work-dir save "
    "save-path o runs model-dir",
    "out": "output output-dir out-dir save-dir save save-path to o dest destination project name",
    "resume": "continue resume-from restart",
    "overwrite": "exist-ok force f clobber overwrite-output",
    "task": "problem mode type",
    "calibration": "num-images num-samples calib calib-size calibration-samples calibration-images nsamples "
    "n-samples num-calibration-images",
    "bits": "weight-bits w-bits wbits num-bits bit int8 int4 precision half dtype fp16 quantize",
    "activation-bits": "a-bits abits act-bits",
    "keep-float": "exclude skip skip-layers nodes-to-exclude op-types-to-exclude ignore exclude-layers",
    "preset": "method algorithm mode scheme config-preset",
    "smoothing": "smoothquant smooth-quant",
    "format": "formats include target backend engine to type output-format",
    "dynamic-size": "dynamic dynamic-axes dynamic-shape dynamic-shapes dynamic-batch",
    "num-images": "num-samples samples verify-images count n",
    "top-k": "topk k top5",
    "min-confidence": "conf confidence conf-thres conf-threshold score-thr score-threshold threshold",
    "max-detections": "max-det max-dets limit",
    "csv": "save-txt save-csv to-csv output-format",
    "json": "save-json to-json output-format format",
    "count": "num-images num-samples samples n number",
    "runtimes": "provider providers backend backends engine engines framework runtime ep execution-provider",
    "threads": "num-threads n-threads intra-op-threads nthreads t cpu-threads",
    "min-runs": "repeat repeats runs iters num-runs n-runs iterations num-iters n-iter loops count",
    "warmup-runs": "warmup warm-up num-warmup warmup-iters",
    "energy": "power meter watts",
    "device": "target on",
    "max-latency-ms": "latency max-latency latency-ms target-latency",
    "max-size-mb": "size max-size size-mb",
    "min-accuracy": "accuracy min-acc acc",
    "max-memory-mb": "memory ram max-memory",
    "robustness": "robust corruptions imagenet-c tta",
    "mean": "norm-mean image-mean",
    "std": "norm-std image-std",
    "interpolation": "resample resize-mode interp",
    "config": "cfg yaml config-file hyp hparams c",
    "print-config": "show-config dump-config dry-run",
    "debug": "verbose v traceback",
    "quiet": "silent s no-progress",
    "objective": "method loss",
    "shard": "split part",
    "trials": "n-trials num-trials max-trials",
    "vary": "param params search sweep",
    "storage": "database db",
    "references": "published baseline baselines",
    "plot": "figure chart out",
    "open": "show browser",
}
"""Setting, as an option without its hyphens -> what other tools, and people, call it."""

FIELDS = {"weight-bits": "bits", "num-images": "calibration"}
"""Field of a configuration -> its option, where the two differ; ``num-images`` is a setting of its own too."""


def plain(word: str) -> str:
    """A name as the table has it: ``--LR=3`` and ``lr`` are one word."""
    return word.partition("=")[0].strip("-").replace("_", "-").lower()


def nearest_names(word: str, known: Iterable[str], cutoff: float = 0.75) -> list[str]:
    """The known names that may be meant: by the letters without hyphens, by meaning, or by spelling, best first."""
    names = list(dict.fromkeys(known))
    wanted = plain(word)
    if same := [name for name in names if plain(name).replace("-", "") == wanted.replace("-", "")]:
        return same
    if meant := [name for name in names if wanted in _called(plain(name))]:
        return meant
    spelt = {plain(name): name for name in names}
    return [spelt[found] for found in difflib.get_close_matches(wanted, spelt, n=2, cutoff=cutoff)]


def _called(name: str) -> list[str]:
    return f"{MEANT.get(name, '')} {MEANT.get(FIELDS.get(name, ''), '')}".split()
