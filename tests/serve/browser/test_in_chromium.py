"""The page in a real browser: two real models, with threads, closed half-way, over TLS, and where there is no TLS."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import BrowserContext, Page, sync_playwright
from serve.browser.running import Server

from vitrail.bench import BenchConfig, read_results
from vitrail.core.files import write_json
from vitrail.core.types import Preprocessing
from vitrail.export import export_model
from vitrail.models import create_model
from vitrail.runs.run import Run
from vitrail.serve.browser import BrowserConfig, find_assets, server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MODELS = ("edgevit_nano_stride2", "vit_nano_patch4")
SIDE = 48
QUICK = BenchConfig(min_runs=8, min_seconds=0.2, budget_seconds=5, warmup_runs=12, warmup_seconds=0.5)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP phone.test 127.0.0.1",  # a name on the network, as browsers see it
]  # fmt: skip
DONE_MS = 60_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install the package chromium"),
    pytest.mark.skipif(find_assets() is None, reason="no onnxruntime-web here; run: make web"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two families, untrained, which changes neither what they compute nor how long it takes."""
    torch.manual_seed(0)
    how = Preprocessing(image_size=(SIDE, SIDE))
    runs = []
    for number, name in enumerate(MODELS):
        run = Run(tmp_path_factory.mktemp("runs") / name)
        run.folder.mkdir()
        model = create_model(name, num_classes=10, image_size=(SIDE, SIDE)).eval()
        images = torch.randn(2, 3, SIDE, SIDE)
        export_model(model, run.onnx("float"), preprocessing=how, classes=list("0123456789"), images=images)
        write_json(
            run.description,
            {"task": "classification", "model": {"name": name, "fields": {}}, "preprocessing": how.to_dict()},
        )
        scores = [{"name": "top1", "title": "top-1", "percent": True, "higher_is_better": True}]
        reports = {"onnx-float": {"top1": 0.8 + 0.1 * number}}
        write_json(run.evaluation, {"scores": scores, "reports": reports})
        runs.append(run)
    return runs


@pytest.fixture
def models(exported: list[Run]) -> Iterator[list[Run]]:
    yield exported
    for run in exported:
        run.bench_rows.unlink(missing_ok=True)


@pytest.fixture
def serve(models: list[Run], tmp_path: Path) -> Callable[..., Server]:
    def start(runs: list[Run] = models, **values: Any) -> Server:
        values = {"port": 0, "wasm_threads": (1, 2), "database": tmp_path / "devices.sqlite"} | values
        return Server(runs, BrowserConfig(**values), QUICK)

    return start


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Callable[..., BrowserContext]]:
    """Browsers with a profile of their own: devices that know nothing of each other."""
    opened: list[BrowserContext] = []

    def launch(*flags: str) -> BrowserContext:
        opened.append(
            playwright.chromium.launch_persistent_context(
                tmp_path / f"profile-{len(opened)}",
                executable_path=CHROMIUM,
                headless=True,
                ignore_https_errors=True,
                args=[*FLAGS, *flags],
            )
        )
        return opened[-1]

    with sync_playwright() as playwright:
        yield launch
        for context in opened:
            context.close()


class Visit:
    """A page, and everything that it asked for and complained of."""

    def __init__(self, context: BrowserContext, address: str, invitation: str = "") -> None:
        self.page: Page = context.new_page()
        self.address = address
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.goto(f"{address}/#{invitation}")

    def start(self) -> None:
        self.page.click("#go")

    def finish(self) -> None:
        self.page.wait_for_selector("#finished:not([hidden])", timeout=DONE_MS)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def foreign(self) -> list[str]:
        return [url for url in self.asked if not url.startswith((self.address, "data:"))]


def counts(database: Path) -> list[tuple[str, int]]:
    """How often each (model, threads) was stored."""
    with sqlite3.connect(database) as db:
        rows = db.execute("SELECT model || ' ' || threads, count(*) FROM measurement GROUP BY 1").fetchall()
    db.close()
    return rows


def test_two_models_are_measured_with_threads_and_nothing_is_asked_from_elsewhere(serve, chromium, models):
    started = serve(num_devices=1)
    visit = Visit(chromium(), *started.link())
    visit.page.fill("#name", "Kitchen laptop")
    assert visit.page.evaluate("[isSecureContext, crossOriginIsolated]") == [True, True]
    visit.start()
    visit.finish()
    assert visit.page.locator("#chart .front").count() == 1
    assert visit.page.locator("#chart .point").count() == 4
    assert "4 measurements on 1 device." in visit.text("#summary")
    assert "Kitchen laptop" in visit.text("#rows")
    assert "failed" not in visit.text("#finished")
    assert visit.foreign() == []
    assert not [text for text in visit.complaints if "net::ERR_" not in text]  # the server has stopped by now
    started.end()
    for run in models:
        rows = read_results(run.bench_rows)
        assert sorted(row.threads for row in rows) == [1, 2]
        for row in rows:
            assert (row.device, row.failure) == ("Kitchen laptop", None)
            assert 0 < row.latency_ms_min <= row.latency_ms_median <= row.latency_ms_p90 <= row.latency_ms_p99
            assert row.num_runs >= QUICK.min_runs
            assert row.load_ms > 0
            assert float(row.options["max_relative_error"]) < 1e-5  # as native ONNX Runtime answers
            assert row.options["secure_context"] == row.options["simd"] == "true"


def test_a_bad_link_measures_nothing(serve, chromium):
    started = serve(num_devices=1)
    address, invitation = started.link()
    bad = Visit(chromium(), address, "not-an-invitation")
    bad.page.wait_for_selector("#trouble:not([hidden])")
    assert "scan the code" in bad.text("#trouble")
    assert not bad.page.is_visible("#go")
    none = Visit(chromium(), address)
    none.page.wait_for_selector("#trouble:not([hidden])")
    good = Visit(chromium(), address, invitation)
    good.start()
    good.finish()
    started.end()
    assert len(started.results) == 4


def test_a_second_device_at_the_same_time(serve, chromium):
    started = serve(num_devices=2)
    visits = []
    for name in ("One", "Two"):
        visits.append(Visit(chromium(), *started.link()))
        visits[-1].page.fill("#name", name)
    for visit in visits:
        visit.start()
    for visit in visits:
        visit.finish()
    started.end()
    assert sorted((row.device, row.threads) for row in started.results) == [
        (device, threads) for device in ("One", "Two") for threads in (1, 1, 2, 2)
    ]
    assert all(row.failure is None for row in started.results)


def test_a_page_that_is_closed_half_way_keeps_what_it_measured_and_goes_on_later(serve, chromium, tmp_path):
    started = serve(num_devices=1)
    address, invitation = started.link()
    device = chromium()
    first = Visit(device, address, invitation)
    first.start()
    first.page.wait_for_selector("#rows tr + tr", timeout=DONE_MS)  # the device's name, and its first row
    first.page.close()
    kept = counts(tmp_path / "devices.sqlite")
    assert 1 <= len(kept) < 4
    again = Visit(device, address)
    again.page.wait_for_selector("#rows tr")
    again.start()
    again.finish()
    started.end()
    stored = counts(tmp_path / "devices.sqlite")
    assert len(stored) == 4
    assert {number for _, number in stored} == {1}  # nothing lost, nothing twice
    assert set(kept) <= set(stored)


def test_results_wait_in_the_browser_while_the_server_cannot_be_reached(serve, chromium):
    started = serve(num_devices=1)
    address, invitation = started.link()
    device = chromium()
    visit = Visit(device, address, invitation)
    visit.page.route("**/api/results", lambda route: route.abort())
    visit.start()
    visit.finish()
    assert "could not be sent yet" in visit.text("#finished")
    assert started.results == []
    visit.page.close()
    Visit(device, address)  # nobody presses a button here
    started.end()
    assert sorted(row.threads for row in started.results) == [1, 1, 2, 2]


def test_over_tls_there_are_threads(serve, chromium, monkeypatch):
    monkeypatch.setattr(server, "local_addresses", lambda: ["127.0.0.1"])
    started = serve(host="0.0.0.0", num_devices=1)
    address, invitation = started.link()
    visit = Visit(chromium(), address.replace("127.0.0.1", "phone.test"), invitation)
    visit.start()
    visit.finish()
    started.end()
    assert address.startswith("https:")
    assert {row.threads for row in started.results} == {1, 2}
    assert {row.options["cross_origin_isolated"] for row in started.results} == {"true"}


def test_over_plain_http_there_is_one_thread_and_rows_say_so(serve, chromium, monkeypatch):
    monkeypatch.setattr(server, "local_addresses", lambda: ["127.0.0.1"])
    started = serve(host="0.0.0.0", plain_http=True, num_devices=1)
    address, invitation = started.link()
    visit = Visit(chromium(), address.replace("127.0.0.1", "phone.test"), invitation)
    visit.page.wait_for_selector("#limits:not([hidden])")
    assert re.search("plain http.* one thread", visit.text("#limits"))
    visit.start()
    visit.finish()
    started.end()
    assert [row.threads for row in started.results] == [1, 1]
    assert {row.options["secure_context"] for row in started.results} == {"false"}
    assert {row.failure for row in started.results} == {None}


def test_names_from_other_devices_are_text(serve, chromium):
    started = serve(num_devices=1)
    visit = Visit(chromium(), *started.link())
    visit.page.fill("#name", "<img src=x onerror=alert(1)>")
    visit.start()
    visit.finish()
    visit.page.wait_for_selector("#rows tr")
    assert "<img src=x onerror=alert(1)>" in visit.text("#rows")
    assert visit.page.locator("#rows img, #chart img").count() == 0
    started.end()


def test_webgpu_gives_the_right_answer(serve, chromium, runs):
    """On a graphics processor that Chromium plays, which the page would leave out because of its speed."""
    started = serve(runs[:1], num_devices=1, wasm_threads=(1,))
    address, invitation = started.link()
    device = chromium("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    plain = Visit(device, address)
    plain.page.wait_for_selector("#trouble:not([hidden])")
    script = plain.page.evaluate("fetch('/page/device.js').then((answer) => answer.text())")
    assert "isFallbackAdapter" in script
    device.route(
        "**/page/device.js",
        lambda route: route.fulfill(
            body=script.replace("if (info.isFallbackAdapter", "if (false) if (info.isFallbackAdapter"),
            content_type="text/javascript",
            headers={"Cross-Origin-Embedder-Policy": "require-corp"},
        ),
    )
    visit = Visit(device, address, invitation)
    visit.start()
    visit.finish()
    started.end()
    found = {(row.runtime, row.variant): row for row in started.results}
    assert len(found) == 4
    for variant in ("float", "int8"):
        row = found["onnxruntime-web-webgpu", variant]
        assert row.failure is None
        assert float(row.options["max_relative_error"]) < 1e-4
