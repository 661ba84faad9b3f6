"""What the browser bench can be told, beside the protocol that it shares with every other bench."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError

MAX_THREADS = 64
MAX_DEVICES = 1000


@dataclass(frozen=True, kw_only=True)
class BrowserConfig:
    """Where the page is served, and in which modes devices measure.

    Attributes:
        host: Address to listen on; 127.0.0.1 is for this machine alone, 0.0.0.0 for the whole local network.
        port: Port to listen on; 0 takes a free one.
        plain_http: Serve without TLS on the network; browsers then give one thread, no WebGPU and a coarse clock, as
            rows say.
        wasm_threads: Numbers of threads of WebAssembly, one measurement each; devices with fewer cores use all of
            theirs.
        webgpu: Measure on the graphics processor too, if the browser allows it.
        num_devices: Number of devices after which the bench stops; 0 goes on until Ctrl-C.
        max_devices: Largest number of devices that may join.
        database: SQLite file for the results of all devices. Default: devices.sqlite beside the first run.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    plain_http: bool = False
    wasm_threads: tuple[int, ...] = (1, 4)
    webgpu: bool = True
    num_devices: int = 0
    max_devices: int = 64
    database: Path | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        if not 0 <= self.port <= 65535:
            raise ConfigError("is no port; give a number from 0 to 65535", port=self.port)
        if not self.wasm_threads or any(not 1 <= threads <= MAX_THREADS for threads in self.wasm_threads):
            raise ConfigError(f"must be numbers from 1 to {MAX_THREADS}; give 1 4", wasm_threads=self.wasm_threads)
        if not 0 <= self.num_devices <= MAX_DEVICES:
            raise ConfigError(f"is not from 0 (until Ctrl-C) to {MAX_DEVICES}", num_devices=self.num_devices)
        if not 1 <= self.max_devices <= MAX_DEVICES:
            raise ConfigError(f"is not from 1 to {MAX_DEVICES}", max_devices=self.max_devices)
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            complaint = "is no address; give 127.0.0.1 (this machine) or 0.0.0.0 (the local network)"
            raise ConfigError(complaint, host=self.host) from None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page; browsers trust it there without TLS."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def uses_tls(self) -> bool:
        return not (self.is_local or self.plain_http)
