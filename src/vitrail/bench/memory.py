"""Peak memory of a candidate: the high-water mark of a fresh process that loads it and runs it.

The peak is everything the process held: interpreter, runtime library, weights, activations, compiler, because that is
what a device must have free. One process a candidate, and each imports only its own runtime, so PyTorch's hundreds of
megabytes do not count against ONNX Runtime. Where the Python binding of another runtime imports PyTorch, which no
device needs, there is no peak. The part of the file is what came on top of what the process held before it loaded the
file; this compares all runtimes. Compiled code that ``torch.compile`` finds in its cache on disk is not compiled again;
memory of compiler processes is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from vitrail.core.errors import BenchError
from vitrail.runtimes import RUNTIMES, ModelFolder, import_runtime, open_session

NUM_RUNS = 3
TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of a fresh process, in MB (10^6 bytes).

    Attributes:
        peak_mb: largest resident memory; None where it is mostly that of a PyTorch that no device needs.
        file_mb: the part of it on top of what the process held before it loaded the file; None where the system does
            not tell.
    """

    peak_mb: float | None
    file_mb: float | None


def measure_memory(source: str | Path | ModelFolder, runtime: str, threads: int, shape: Sequence[int]) -> Memory:
    """Memory of a fresh process that runs ``source`` on images of ``shape``.

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
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


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


def forget_peak() -> bool:
    """Let the high-water mark begin again at what is held now; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def main() -> None:
    """The fresh process: RUNTIME PATH OPENER THREADS B C H W on its command line; prints :class:`Memory` as JSON."""
    runtime, path, opener, threads, *shape = sys.argv[1:]
    source = ModelFolder(Path(path), opener) if opener else path
    import_runtime(runtime)
    images = np.full([int(n) for n in shape], 0.5, dtype=np.float32)  # zeros would be pages that take no memory
    imported = peak_bytes()
    before = psutil.Process().memory_info().rss if forget_peak() else None
    session = open_session(source, runtime, int(threads), shape=images.shape)
    for _ in range(NUM_RUNS):
        session(images)
    peak = peak_bytes()
    foreign = RUNTIMES[runtime].package != "torch" and "torch" in sys.modules
    memory = Memory(
        peak_mb=None if foreign else round(max(peak, imported) / 1e6, 1),
        file_mb=None if before is None else round((peak - before) / 1e6, 1),
    )
    sys.stdout.write(json.dumps(asdict(memory)) + "\n")
