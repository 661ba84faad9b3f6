"""Connections that ask for nothing, or take no answer: the service goes on for everybody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from serve.browser.running import Server

from vitrail.bench import BenchConfig
from vitrail.serve.browser import BrowserConfig, connections, server
from vitrail.serve.browser.connections import LimitedListener, TimedProtocol

HALF_HEADS = [b"", b"GET / HTTP/1.1\r\nX: ", b"POST /api/join HTTP/1.1\r\nHost: a\r\nContent-Le", b"G"]


@pytest.fixture
def address(runs, assets, monkeypatch, tmp_path) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(server, "find_assets", lambda: assets)
    config = BrowserConfig(port=0, database=tmp_path / "devices.sqlite", num_devices=1)
    started = Server(runs, config, BenchConfig())
    url, invitation = started.link()
    yield "127.0.0.1", int(url.rsplit(":", 1)[1])
    with httpx2.Client(base_url=url) as client:
        description = {
            "id": "0" * 32, "name": "Last", "browser": "", "platform": "", "gpu": "", "cores": 1, "memory_gb": 0,
            "secure_context": True, "cross_origin_isolated": True, "simd": True, "webgpu": False, "clock_ms": 0.1,
        }  # fmt: skip
        token = client.post("/api/join", json={"invitation": invitation, "device": description}).json()["session"]
        client.post("/api/done", headers={"Authorization": f"Bearer {token}"})
    started.end()


def is_closed(connection: socket.socket) -> bool:
    """Whether the service ends the connection within seconds."""
    connection.settimeout(20)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def is_served(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=20) as plug:
        plug.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        try:
            return plug.recv(100).startswith(b"HTTP/1.1 200")
        except ConnectionResetError:
            return False


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_half_a_head_is_not_waited_for(address, monkeypatch, before):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    with ExitStack() as stack:
        plugs = [stack.enter_context(socket.create_connection(address)) for _ in HALF_HEADS]
        for plug, head in zip(plugs, HALF_HEADS, strict=True):
            plug.sendall(before + head)
        assert all(is_closed(plug) for plug in plugs)
    assert is_served(address)


def test_one_address_cannot_take_all_connections(address, monkeypatch):
    monkeypatch.setattr(connections, "MAX_OF_ADDRESS", 3)
    with ExitStack() as stack:
        plugs = [stack.enter_context(socket.create_connection(address)) for _ in range(3)]
        with socket.create_connection(("127.0.0.1", address[1])) as one_more:
            assert is_closed(one_more)
        with socket.create_connection(address, source_address=("127.0.0.2", 0)) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 200")
        plugs[0].sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert is_closed(plugs[0])
    monkeypatch.undo()
    assert is_served(address)


def test_of_too_many_connections_the_oldest_of_the_largest_crowd_is_ended(address, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(address)) for _ in range(3)]
        calm = stack.enter_context(socket.create_connection(address, source_address=("127.0.0.2", 0)))
        late = stack.enter_context(socket.create_connection(address, source_address=("127.0.0.3", 0)))
        assert is_closed(crowd[0])
        for plug in (crowd[1], crowd[2], calm, late):
            plug.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert plug.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.168.0.7", "192.168.0.8", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_an_address_of_the_newer_internet_counts_with_its_network(monkeypatch, first, second, same):
    monkeypatch.setattr(connections, "MAX_OF_ADDRESS", 1)
    pairs = [socket.socketpair() for _ in range(2)]
    accepted = iter([(pairs[0][0], (first, 1)), (pairs[1][0], (second, 1))])
    monkeypatch.setattr(socket.socket, "accept", lambda _: next(accepted))
    with LimitedListener(socket.AF_INET) as listener, ExitStack() as stack:
        for pair in pairs:
            stack.enter_context(pair[0])
            stack.enter_context(pair[1])
        listener.accept()
        if same:
            with pytest.raises(ConnectionAbortedError):
                listener.accept()
        else:
            assert listener.accept()[0] is pairs[1][0]


class Transport(asyncio.Transport):
    """Takes note of its end."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        self.ended.set()

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.ended.is_set()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def protocol(app: Callable[..., Any]) -> tuple[TimedProtocol, Transport]:
    import uvicorn
    from uvicorn.server import ServerState

    config = uvicorn.Config(app, lifespan="off", log_level="critical")
    made, transport = TimedProtocol(config, ServerState(), {}), Transport()
    made.connection_made(transport)
    return made, transport


def test_a_receiver_that_takes_nothing_is_let_go_and_a_slow_one_is_not(monkeypatch):
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.0)

    async def stall() -> tuple[bool, bool]:
        made, transport = protocol(lambda *_: None)
        made.pause_writing()
        made.resume_writing()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        slow = transport.ended.is_set()
        made.pause_writing()
        await asyncio.wait_for(transport.ended.wait(), 10)
        made.connection_lost(None)
        return slow, transport.ended.is_set()

    assert asyncio.run(stall()) == (False, True)


def test_a_request_that_is_worked_on_has_no_deadline(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.0)

    async def work() -> list[bool]:
        ready, seen = asyncio.Event(), []

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            seen.append(transport.ended.is_set())
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            ready.set()

        made, transport = protocol(app)
        made.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await ready.wait()
        made.data_received(b"GET / HT")
        await asyncio.wait_for(transport.ended.wait(), 10)
        made.connection_lost(None)
        return [*seen, transport.ended.is_set()]

    assert asyncio.run(work()) == [False, True]
