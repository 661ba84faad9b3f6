"""From runs to a served page, until enough devices have measured or Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.bench import BenchConfig, BenchResult, append_results
from vitrail.core.errors import BenchError, VitrailError
from vitrail.core.extras import import_extra
from vitrail.runs.run import Run
from vitrail.serve.browser.access import Access, DeviceSession
from vitrail.serve.browser.address import link, local_addresses, qr_code
from vitrail.serve.browser.assets import VERSION, Assets, fetch_assets, find_assets
from vitrail.serve.browser.board import bench_result, mode_name
from vitrail.serve.browser.certificate import Certificate, make_certificate
from vitrail.serve.browser.config import BrowserConfig
from vitrail.serve.browser.offer import Offer, read_offers
from vitrail.serve.browser.store import Store, Stored

if TYPE_CHECKING:
    import uvicorn

    from vitrail.serve.browser.app import Plan

Tell = Callable[[str], None]

PACKAGES = ("starlette", "uvicorn", "cryptography", "segno")


def bench_in_browsers(
    runs: Sequence[Run], config: BrowserConfig, protocol: BenchConfig, *, tell: Tell
) -> list[BenchResult]:
    """Serve the page on which devices measure the ONNX files of the runs; blocks until it is done or interrupted.

    Every measurement is stored at once in the database of devices, and added to ``bench.jsonl`` of its run.

    Args:
        runs: with exported files.
        config: where and in which modes.
        protocol: warm-up, number and duration of runs, batch size and seed; the rest of it does not count here.
        tell: shows a line, or a few, to the user: how to join, and what came in.

    Returns:
        what was measured meanwhile, oldest first.

    Raises:
        MissingDependencyError: the extra ``browser`` is not installed.
        BenchError: no files to measure, energy is asked for, no onnxruntime-web, the port is taken, the database is of
            something else.
    """
    for package in PACKAGES:
        import_extra(package, package, "browser")
    if len(protocol.batch_size) > 1:
        sizes = " ".join(map(str, protocol.batch_size))
        raise BenchError(f"batch_size={sizes}: browsers measure one size at a time; give a single number")
    if protocol.energy:
        raise BenchError(f"energy={protocol.energy}: browsers tell no energy; leave it out, or run vitrail there")
    offers = read_offers(runs, protocol.batch_size[0], protocol.seed)
    assets = find_assets() or _fetch(tell)
    path = config.database or runs[0].folder.resolve().parent / "devices.sqlite"
    with _listening(config) as listener, contextlib.closing(Store(path)) as store:
        host = _Host(offers, config, tell=tell, port=listener.getsockname()[1])
        _serve(host, _plan(config, protocol), store, assets, listener)
    return host.results


class _Host:
    """What the one who started the server sees of it, and what it leaves in the run folders."""

    def __init__(self, offers: Sequence[Offer], config: BrowserConfig, *, tell: Tell, port: int) -> None:
        self.offers = {offer.id: offer for offer in offers}
        self.config, self.tell, self.port = config, tell, port
        self.access = Access(config.max_devices)
        self.results: list[BenchResult] = []
        self.server: uvicorn.Server | None = None
        wildcard = config.host in ("0.0.0.0", "::")
        self.addresses = (local_addresses() or ["127.0.0.1"]) if wildcard else [config.host]

    def greet(self, certificate: Certificate | None) -> None:
        """Who can reach the page, and what browsers will say of it."""
        if self.config.is_local:
            self.tell("Only this machine can open the page; add --host 0.0.0.0 for phones and laptops nearby.")
        elif certificate is None:
            self.tell("Plain http: browsers give the page one thread, no WebGPU and a coarse clock; rows say so.")
        else:
            self.tell(
                "Browsers will warn that nobody vouches for this machine; go on if the certificate's SHA-256 is\n"
                f"  {certificate.fingerprint}"
            )
        self.invite()

    def invite(self) -> None:
        """Show the link that the next device can use up."""
        scheme = "https" if self.config.uses_tls else "http"
        first, *others = (link(scheme, at, self.port, self.access.invitation) for at in self.addresses)
        lines = [] if self.config.is_local else [qr_code(first).rstrip("\n")]
        lines += [f"Open on one device: {first}", *(f"  or, on another network: {other}" for other in others)]
        self.tell("\n".join(lines))

    def joined(self, session: DeviceSession) -> None:
        self.tell(f"{session.label} has joined.")
        if not self.access.is_full:
            self.invite()

    def measured(self, stored: Stored) -> None:
        offer = self.offers[stored.measurement.model]
        result = bench_result(stored, offer)
        self.results.append(result)
        mode = mode_name(stored.measurement.backend, stored.measurement.threads)
        outcome = result.failure or f"{result.latency_ms_median:.2f} ms"
        self.tell(f"{stored.label}, {offer.label}, {mode}: {outcome}")
        try:
            append_results(offer.run.bench_rows, [result])
        except VitrailError as error:
            self.tell(f"The database has it, but: {error}")

    def trouble(self, error: Exception) -> None:
        self.tell(f"The database cannot be written: {error}. Devices keep results and try again; links stay valid.")

    def done(self, session: DeviceSession) -> None:
        self.tell(f"{session.label} has measured everything.")
        finished = sum(one.done for one in self.access.sessions)
        if self.server is not None and 0 < self.config.num_devices <= finished:
            self.server.should_exit = True


def _serve(host: _Host, plan: Plan, store: Store, assets: Assets, listener: socket.socket) -> None:
    import uvicorn

    from vitrail.serve.browser.app import BrowserBench
    from vitrail.serve.browser.connections import TimedProtocol

    bench = BrowserBench(list(host.offers.values()), plan, store=store, assets=assets, access=host.access, events=host)
    with tempfile.TemporaryDirectory(prefix="vitrail-") as folder:
        certificate = make_certificate(Path(folder), host.addresses) if host.config.uses_tls else None
        host.server = uvicorn.Server(
            uvicorn.Config(
                bench.app,
                http=TimedProtocol,
                loop="asyncio",  # others do not ask the listening socket
                ws="none",
                lifespan="off",
                log_level="critical",  # garbage from the network is no news; the host tells what is
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=3,
                ssl_certfile=str(certificate.certificate) if certificate else None,
                ssl_keyfile=str(certificate.key) if certificate else None,
            )
        )
        host.greet(certificate)
        with contextlib.suppress(KeyboardInterrupt):  # which is how one stops it
            host.server.run(sockets=[listener])


def _plan(config: BrowserConfig, protocol: BenchConfig) -> Plan:
    from vitrail.serve.browser.app import Plan

    return Plan(
        min_runs=protocol.min_runs,
        min_seconds=protocol.min_seconds,
        budget_seconds=protocol.budget_seconds,
        warmup_runs=protocol.warmup_runs,
        warmup_seconds=protocol.warmup_seconds,
        threads=tuple(sorted(set(config.wasm_threads))),
        webgpu=config.webgpu,
    )


def _fetch(tell: Tell) -> Assets:
    tell(f"Fetching onnxruntime-web {VERSION} with npm; this is done once, and 41 MB are kept.")
    return fetch_assets()


@contextlib.contextmanager
def _listening(config: BrowserConfig) -> Iterator[socket.socket]:
    from vitrail.serve.browser.connections import MAX_CONNECTIONS, LimitedListener

    with LimitedListener(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.host, config.port))
            listener.listen(MAX_CONNECTIONS)  # from here on nobody who follows the link is turned away
        except OSError as error:
            raise BenchError(
                f"cannot listen on {config.host}:{config.port}: {error.strerror or error}; choose another with --host "
                f"and --port"
            ) from error
        yield listener
