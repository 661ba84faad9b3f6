"""Two runs with small real files, a service without a network, and devices that say what tests want."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from vitrail.runs.run import Run
from vitrail.serve.browser.access import Access
from vitrail.serve.browser.app import BrowserBench, Plan
from vitrail.serve.browser.assets import FILES, NOTICE_NAMES, Assets
from vitrail.serve.browser.offer import Offer, read_offers
from vitrail.serve.browser.store import Store


def write_onnx(path: Path, seed: int, side: int = 8) -> None:
    """A convolution, a mean and a product: (batch, 3, side, side) -> (batch, 4)."""
    random = np.random.default_rng(seed)
    weights = {"kernel": (6, 3, 3, 3), "matrix": (6, 4)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "kernel"], ["features"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["features"], ["active"]),
            helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(random.standard_normal(s, dtype=np.float32), n) for n, s in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def write_run(folder: Path, seed: int, side: int = 8) -> Run:
    folder.mkdir(parents=True)
    run = Run(folder)
    run.description.write_text(
        json.dumps(
            {
                "task": "classification",
                "model": {"name": "x", "fields": {}},
                "preprocessing": {"image_size": [side, side]},
            }
        )
    )
    write_onnx(run.onnx("float"), seed, side)
    write_onnx(run.onnx("int8"), seed + 1, side)
    reports = {"torch-float": {"top1": 0.9}, "onnx-float": {"top1": 0.91}, "onnx-int8": {"top1": 0.88}}
    scores = [{"name": "top1", "title": "top-1", "percent": True, "higher_is_better": True}]
    run.evaluation.write_text(json.dumps({"scores": scores, "reports": reports}))
    return run


class Clock:
    """Seconds that pass when a test wants."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Witness:
    """Remembers what the service told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def __getattr__(self, event: str) -> Callable[[Any], None]:
        return lambda what: self.seen.append((event, what))


class Device:
    """A browser, as far as the service sees one."""

    def __init__(self, client: TestClient, number: int, **description: Any) -> None:
        self.client, self.number = client, number
        self.description = {
            "id": f"{number:032x}", "name": f"Phone {number}", "browser": "Chrome 156", "platform": "Android 16",
            "gpu": "", "cores": 8, "memory_gb": 8, "secure_context": True, "cross_origin_isolated": True,
            "simd": True, "webgpu": False, "clock_ms": 0.005,
        } | description  # fmt: skip
        self.token = ""
        self.posts = 0

    def join(self, invitation: str) -> Any:
        answer = self.client.post("/api/join", json={"invitation": invitation, "device": self.description})
        self.token = answer.json().get("session", "")
        return answer

    @property
    def headers(self) -> dict[str, bytes]:
        return {"Authorization": f"Bearer {self.token}".encode()}

    def get(self, path: str) -> Any:
        return self.client.get(path, headers=self.headers)

    def post(self, path: str, body: bytes) -> Any:
        return self.client.post(path, content=body, headers=self.headers)

    def measurement(self, model: str, **values: Any) -> dict[str, Any]:
        self.posts += 1
        return {
            "id": f"{self.number:016x}{self.posts:016x}", "model": model, "backend": "wasm", "threads": 1,
            "samples_ms": [2.0, 1.0, 3.0, 2.5], "runs_per_sample": 1, "warmup_runs": 3, "load_ms": 20.0,
            "hidden": False, "max_relative_error": 1e-6,
        } | values  # fmt: skip

    def send(self, measurement: dict[str, Any]) -> Any:
        return self.post("/api/results", json.dumps(measurement).encode())


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [write_run(tmp_path / "runs" / "first", 0), write_run(tmp_path / "runs" / "second", 10)]


@pytest.fixture
def offers(runs: list[Run]) -> list[Offer]:
    return read_offers(runs, batch_size=1, seed=0)


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    """Files of the right names; only browsers need what is in them."""
    folder = tmp_path / "assets"
    folder.mkdir()
    for name in (*FILES, *NOTICE_NAMES):
        (folder / name).write_text(name)
    return Assets(folder=folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "devices.sqlite")
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def bench(offers: list[Offer], assets: Assets, store: Store, clock: Clock, witness: Witness) -> BrowserBench:
    plan = Plan(
        min_runs=4, min_seconds=0, budget_seconds=5, warmup_runs=3, warmup_seconds=1, threads=(1, 4), webgpu=True
    )
    access = Access(max_sessions=4, clock=clock)
    return BrowserBench(offers, plan, store=store, assets=assets, access=access, events=witness)


@pytest.fixture
def client(bench: BrowserBench) -> Iterator[TestClient]:
    with TestClient(bench.app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def make_device(client: TestClient, bench: BrowserBench) -> Callable[..., Device]:
    """A device that has joined."""
    numbers = iter(range(1, 100))

    def make(**description: Any) -> Device:
        device = Device(client, next(numbers), **description)
        assert device.join(bench.access.invitation).status_code == 200
        return device

    return make


@pytest.fixture
def device(make_device: Callable[..., Device]) -> Device:
    return make_device()
