"""Bodies that arrive slowly, never, or half: only an ASGI server meets them, so that this speaks ASGI itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vitrail.serve.browser import app as app_module


def send(bench: Any, messages: list[dict[str, Any]]) -> int:
    """The status of POST /api/join whose body comes in these pieces; None where the sender falls silent."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/api/join",
        "raw_path": b"/api/join", "query_string": b"", "headers": [], "client": ("127.0.0.1", 1), "scheme": "http",
        "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    statuses = []

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def collect(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    asyncio.run(bench.app(scope, receive, collect))
    return statuses[0]


def test_a_sender_that_falls_silent_is_let_go(bench, monkeypatch):
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.01)
    assert send(bench, [{"type": "http.request", "body": b"{", "more_body": True}]) == 408


def test_a_sender_that_leaves_is_let_go(bench):
    assert send(bench, [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]) == 400


@pytest.mark.parametrize("pieces", [1, 50])
def test_an_endless_body_is_not_read_to_its_end(bench, pieces):
    piece = b" " * (2 * app_module.MAX_JOIN_BYTES // pieces + 1)
    messages = [{"type": "http.request", "body": piece, "more_body": True} for _ in range(1000)]
    assert send(bench, messages) == 413
    assert len(messages) >= 1000 - pieces
