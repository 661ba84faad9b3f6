from __future__ import annotations

import subprocess
import sys

from vitrail.runtimes.openvino_core import openvino_core

# In a process of its own, since what is tested is whether the process lives.
PROGRAM = """
import gc, os, signal
from pathlib import Path
import numpy as np, openvino as ov
from openvino import opset13 as ops
from vitrail.runtimes import open_session

x = ops.parameter([2, 3], np.float32)
ov.save_model(ov.Model([ops.relu(x)], [x]), "model.xml")
sessions = [open_session(Path("model.xml"), "openvino") for _ in range(3)]
assert [session(np.ones((2, 3), np.float32)).shape for session in sessions] == [(2, 3)] * 3
while sessions:
    sessions.pop(0)  # the oldest first: the others' memory of the stack before them becomes wrong
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_there_is_one() -> None:
    assert openvino_core() is openvino_core()


def test_ctrl_c_after_sessions_that_are_gone_interrupts(tmp_path) -> None:
    answer = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "interrupted\n"), answer.stderr
