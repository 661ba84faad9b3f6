"""Peak memory of a candidate: the high-water mark of a fresh process that loads it and runs it.

What is reported is everything the process held at its peak: interpreter, runtime library, weights, activations,
compiler. Nothing is subtracted, because that is what a device must have free. One process a candidate, and each imports
only its own runtime, so PyTorch's hundreds of megabytes do not count against ONNX Runtime. Compiled code that
``torch.compile`` finds in its cache on disk is not compiled again; memory of compiler processes is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from vitrail.core.errors import BenchError
from vitrail.runtimes import ModelFolder, open_session

NUM_RUNS = 3
TIMEOUT_S = 300.0


def measure_memory(source: str | Path | ModelFolder, runtime: str, threads: int, shape: Sequence[int]) -> float:
    """Peak resident memory in MB (10^6 bytes) of a fresh process that runs ``source`` on images of ``shape``.

    Raises:
        BenchError: the process failed, with the last line that it wrote, or took longer than five minutes.
    """
    path, opener = (source.path, source.opener) if isinstance(source, ModelFolder) else (source, "")
    arguments = [runtime, str(path), opener, str(threads), *map(str, shape)]
    command = [sys.executable, "-c", "from vitrail.bench.memory import main; main()", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(
            f"memory of {runtime} took more than {TIMEOUT_S:.0f} s to measure; set memory=false"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BenchError(f"the process that measures the memory of {runtime} failed: {lines[-1]}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_memory_mb"])


def peak_bytes() -> int:
    """The high-water mark of this process's resident memory.

    On Linux it is VmHWM and not ``getrusage``: the latter survives ``exec``, so a child of a large process would
    report its parent's peak.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # does not exist on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def main() -> None:
    """The fresh process: RUNTIME PATH OPENER THREADS B C H W on its command line; prints the peak as a line of JSON."""
    runtime, path, opener, threads, *shape = sys.argv[1:]
    source = ModelFolder(Path(path), opener) if opener else path
    images = np.full([int(n) for n in shape], 0.5, dtype=np.float32)  # zeros would be pages that take no memory
    session = open_session(source, runtime, int(threads), shape=images.shape)
    for _ in range(NUM_RUNS):
        session(images)
    sys.stdout.write(json.dumps({"peak_memory_mb": round(peak_bytes() / 1e6, 1)}) + "\n")
