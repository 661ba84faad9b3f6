"""Limits on connections, so that nobody shuts the others out: how many from one address, and how long they may idle."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 512
MAX_OF_ADDRESS = 64
"""A browser opens six at most; several devices may share an address behind a router."""

HEAD_SECONDS = 10.0
"""Time for the head of a request, from the connection or the last answer on."""

STALL_SECONDS = 60.0
"""Time in which a receiver takes the next part of an answer, which may be a large file over a slow network."""


class LimitedListener(socket.socket):
    """A listening socket that limits connections before anything is read of them, TLS handshakes included.

    Where there are too many of all addresses, the address with the most of them loses its oldest one.
    """

    def __init__(self, family: socket.AddressFamily) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._networks: WeakKeyDictionary[socket.socket, str] = WeakKeyDictionary()

    def accept(self) -> tuple[socket.socket, Any]:
        """
        Raises:
            ConnectionAbortedError: there are too many connections of this address.
        """
        connection, address = super().accept()
        network = _network(address[0])
        held = {other: known for other, known in self._networks.items() if other.fileno() != -1}
        counts = Counter(held.values())
        if counts[network] >= MAX_OF_ADDRESS:
            connection.close()
            raise ConnectionAbortedError
        if len(held) >= MAX_CONNECTIONS:
            (crowd, _), *_ = counts.most_common(1)
            oldest = next(other for other, known in held.items() if known == crowd)
            del self._networks[oldest]
            with contextlib.suppress(OSError):  # it has gone by itself
                oldest.shutdown(socket.SHUT_RDWR)
        self._networks[connection] = network
        return connection, address


def _network(address: str) -> str:
    """The address; of IPv6 the network of 2^64 addresses, which one device has for itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


class TimedProtocol(H11Protocol):
    """Ends connections without a whole request in :data:`HEAD_SECONDS`, and those that take no more of an answer.

    Bodies have a limit of their own, where they are read.
    """

    _request: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its parent
        super().connection_made(transport)
        self._time_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._time_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._request, self._stall):
            if timer is not None:
                timer.cancel()

    def _time_request(self) -> None:
        """Start the time for a head where none runs; more bytes of the same head do not prolong it."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self._request is not None:
                self._request.cancel()
                self._request = None
        elif self._request is None:
            self._request = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
