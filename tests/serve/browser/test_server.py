"""The service on a real socket of this machine, with devices that are not browsers but speak like them."""

from __future__ import annotations

import hashlib
import json
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from serve.browser.running import LINK, Server

from vitrail.bench import BenchConfig, latest_results, read_results
from vitrail.cli.main import main
from vitrail.core.errors import BenchError, MissingDependencyError
from vitrail.serve.browser import BrowserConfig, bench_in_browsers, server


@pytest.fixture
def serve(runs, assets, monkeypatch, tmp_path) -> Callable[..., Server]:
    monkeypatch.setattr(server, "find_assets", lambda: assets)

    def start(**values) -> Server:
        return Server(runs, BrowserConfig(port=0, database=tmp_path / "devices.sqlite", **values), BenchConfig())

    return start


def join(client: httpx2.Client, invitation: str, number: int) -> dict[str, str]:
    description = {
        "id": f"{number:032x}", "name": f"Laptop {number}", "browser": "Firefox 150", "platform": "macOS", "gpu": "",
        "cores": 8, "memory_gb": 0, "secure_context": True, "cross_origin_isolated": True, "simd": True,
        "webgpu": False, "clock_ms": 0.02,
    }  # fmt: skip
    answer = client.post("/api/join", json={"invitation": invitation, "device": description})
    assert answer.status_code == 200
    return {"Authorization": f"Bearer {answer.json()['session']}"}


def measurement(model: str, number: int) -> dict[str, object]:
    return {
        "id": f"{number:032x}", "model": model, "backend": "wasm", "threads": 4, "runs_per_sample": 2,
        "samples_ms": [1.0, 2.0] * 4 + [30.0, 40.0] * 4, "warmup_runs": 3, "load_ms": 9.0, "max_relative_error": 1e-7,
    }  # fmt: skip


def test_results_of_devices_stand_in_the_runs_beside_those_of_this_machine(serve, runs):
    started = serve(num_devices=2)
    for number in (1, 2):
        address, invitation = started.link()
        with httpx2.Client(base_url=address) as client:
            headers = join(client, invitation, number)
            for post, model in enumerate(client.get("/api/state", headers=headers).json()["models"]):
                body = measurement(model["id"], post)
                assert client.post("/api/results", json=body, headers=headers).status_code == 201
            assert client.post("/api/done", headers=headers).status_code == 204
    started.end()
    assert len(started.results) == 8
    assert read_results(runs[0].bench_rows) == started.results[0:2] + started.results[4:6]
    assert read_results(runs[1].bench_rows) == started.results[2:4] + started.results[6:8]
    assert latest_results(runs[0].bench_rows) == []
    row = latest_results(runs[0].bench_rows, device="Laptop 2")[0]
    assert (row.run, row.name, row.runtime) == ("first", "onnxruntime-web float", "onnxruntime-web")
    assert (row.threads, row.num_runs, row.batch_size, row.image_size) == (4, 32, 1, (8, 8))
    assert (row.latency_ms_median, row.latency_ms_p90, row.latency_ms_p99, row.latency_ms_min) == (
        16.0,
        40.0,
        40.0,
        1.0,
    )
    assert row.contended  # much slower at the end
    assert (row.file, row.size_bytes) == ("model.onnx", runs[0].onnx("float").stat().st_size)
    assert row.drift == 35 / 1.5
    assert row.warnings == ("the last quarter of runs took 23.33 times as long as the first",)
    assert row.environment["browser"] == "Firefox 150"
    assert "id" not in row.environment
    text = "\n".join(started.told)
    assert "Only this machine can open the page" in text
    assert "Laptop 1, first int8, 4 threads: 16.00 ms" in text
    assert "Laptop 2 has measured everything." in text


def test_on_the_network_the_page_comes_over_tls_with_the_certificate_that_was_told(serve, monkeypatch):
    monkeypatch.setattr(server, "local_addresses", lambda: ["127.0.0.1"])
    started = serve(host="0.0.0.0", num_devices=1)
    address, invitation = started.link()
    assert address.startswith("https://127.0.0.1:")
    text = "\n".join(started.told)
    assert "▀" in text  # the code to scan
    fingerprint = re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", text)[0]
    host, port = address.removeprefix("https://").split(":")
    pem = ssl.get_server_certificate((host, int(port)))
    context = ssl.create_default_context(cadata=pem)  # trusts this certificate alone, and checks the address in it
    with httpx2.Client(base_url=address, verify=context) as client:
        headers = join(client, invitation, 1)
        assert client.get("/").headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        client.post("/api/done", headers=headers)
    started.end()
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() == fingerprint.replace(":", "").lower()


def test_what_is_no_http_crashes_nothing(serve):
    started = serve(num_devices=1)
    address, invitation = started.link()
    port = int(address.rsplit(":", 1)[1])
    start = b"POST /api/join HTTP/1.1\r\nHost: a\r\nContent-Length: "
    for noise in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", start + b"-1\r\n\r\n", start + b"9" * 30, b"\0" * 70_000):
        with socket.create_connection(("127.0.0.1", port)) as plug:
            plug.sendall(noise)
    with httpx2.Client(base_url=address) as client:
        client.post("/api/done", headers=join(client, invitation, 1))
    started.end()
    assert started.results == []


def test_a_port_that_is_taken_is_told(runs, assets, monkeypatch):
    monkeypatch.setattr(server, "find_assets", lambda: assets)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BenchError, match=f"cannot listen on 127.0.0.1:{port}: .*--port"):
            bench_in_browsers(runs, BrowserConfig(port=port), BenchConfig(), tell=print)


def test_the_extra_is_asked_for_where_it_is_missing(runs, monkeypatch):
    monkeypatch.setattr(server, "PACKAGES", ("starlette", "no_such_package"))
    with pytest.raises(MissingDependencyError, match=r"pip install 'vitrail\[browser\]'"):
        bench_in_browsers(runs, BrowserConfig(), BenchConfig(), tell=print)


def test_the_verb_prints_rows_and_links_apart(runs, assets, monkeypatch, capfd, tmp_path):
    """Standard output stays one document, standard error has the link."""
    monkeypatch.setattr(server, "find_assets", lambda: assets)
    for run in runs:
        run.weights.write_bytes(b"")
    links: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr("vitrail.cli.display.Display.tell", lambda _self, text: links.put(text))

    def browser() -> None:
        while not (found := LINK.search(links.get(timeout=30))):
            pass
        with httpx2.Client(base_url=found[1]) as client:
            headers = join(client, found[2], 1)
            model = client.get("/api/state", headers=headers).json()["models"][0]["id"]
            client.post("/api/results", json=measurement(model, 1), headers=headers)
            client.post("/api/done", headers=headers)

    thread = threading.Thread(target=browser, daemon=True)
    thread.start()
    folders = [str(run.folder) for run in runs]
    words = ["bench", *folders, "--device", "browser", "--port", "0", "--num-devices", "1", "--json"]
    assert main(words) == 0
    thread.join(30)
    (row,) = json.loads(capfd.readouterr().out)
    assert (row["device"], row["latency_ms_median"]) == ("Laptop 1", 16.0)
    assert Path(tmp_path / "runs" / "devices.sqlite").stat().st_size > 0


def test_browsers_measure_one_batch_size_at_a_time(runs):
    with pytest.raises(BenchError, match="batch_size=1 8: browsers measure one size"):
        bench_in_browsers(runs, BrowserConfig(), BenchConfig(batch_size=(1, 8)), tell=print)


def test_browsers_tell_no_energy(runs):
    with pytest.raises(BenchError, match="energy=battery: browsers tell no energy; leave it out"):
        bench_in_browsers(runs, BrowserConfig(), BenchConfig(energy="battery"), tell=print)
