"""The HTTP side: page, files, and a door that lets in only what :mod:`messages` allows."""

from __future__ import annotations

import asyncio
import importlib.resources
import mimetypes
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message as AsgiMessage, Receive, Scope, Send

from vitrail.serve.browser.access import Access, DeviceSession
from vitrail.serve.browser.assets import Assets
from vitrail.serve.browser.board import board
from vitrail.serve.browser.messages import DeviceDescription, Join, Measurement, Message
from vitrail.serve.browser.offer import Offer
from vitrail.serve.browser.store import Store, Stored

T = TypeVar("T", bound=Message)

MAX_JOIN_BYTES = 4096
MAX_RESULT_BYTES = 131_072
BODY_SECONDS = 20.0
MAX_POSTS = 500
"""Measurements that one session may leave in the database."""

HEADERS = {
    # These three make the page "cross-origin isolated": without them browsers share no memory between threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
FOREVER = "public, max-age=31536000, immutable"
PAGE = Path(str(importlib.resources.files("vitrail.serve.browser"))) / "page"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How devices measure; names as in :class:`~vitrail.bench.protocol.BenchConfig`.

    Attributes:
        threads: of WebAssembly, one measurement for each.
        webgpu: measure on the graphics processor too.
    """

    min_runs: int
    min_seconds: float
    budget_seconds: float
    warmup_runs: int
    warmup_seconds: float
    threads: tuple[int, ...]
    webgpu: bool


class Events(Protocol):
    """Who is told what happens, in the event loop's thread."""

    def joined(self, session: DeviceSession) -> None:
        """A device used up the invitation; there is a new one."""

    def measured(self, stored: Stored) -> None:
        """A device sent a measurement that is now on the disk."""

    def done(self, session: DeviceSession) -> None:
        """A device has measured everything."""

    def trouble(self, error: Exception) -> None:
        """The database refused."""


class BrowserBench:
    """The service; :attr:`app` is what an ASGI server runs."""

    def __init__(
        self, offers: Sequence[Offer], plan: Plan, *, store: Store, assets: Assets, access: Access, events: Events
    ) -> None:
        self.offers: Mapping[str, Offer] = {offer.id: offer for offer in offers}
        self.plan, self.store, self.assets, self.access, self.events = plan, store, assets, access, events
        self._revision = 0
        self._board: tuple[int, list[dict[str, Any]]] = (-1, [])
        routes = [
            Route("/", self.page),
            Route("/page/{name}", self.page),
            Route("/ort/{version}/{name}", self.runtime),
            Route("/api/join", self.join, methods=["POST"]),
            Route("/api/device", self.rename, methods=["POST"]),
            Route("/api/state", self.state),
            Route("/api/board", self.board),
            Route("/api/results", self.result, methods=["POST"]),
            Route("/api/done", self.done, methods=["POST"]),
            Route("/api/models/{model}/{part}", self.model),
        ]
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(_WithHeaders)],
            exception_handlers={HTTPException: _refusal, sqlite3.Error: self.trouble},
        )

    async def page(self, request: Request) -> Response:
        path = PAGE / request.path_params.get("name", "index.html")
        if path.name not in {file.name for file in PAGE.iterdir()}:
            raise HTTPException(404, "no such page")
        return _file(path, "no-cache")

    async def runtime(self, request: Request) -> Response:
        """onnxruntime-web; its address has the version in it, so that browsers may keep it."""
        name, files = request.path_params["name"], self.assets.files
        if name not in files or request.path_params["version"] != self.assets.version:
            raise HTTPException(404, "no such file of onnxruntime-web")
        return _file(files[name], FOREVER)

    async def join(self, request: Request) -> Response:
        message = await _read(request, Join, MAX_JOIN_BYTES)
        if self.access.is_full:
            raise HTTPException(403, "as many devices as allowed have joined; raise --max-devices")
        if not self.access.accepts(message.invitation):
            _limit(self.access.lets_in(_address(request)))
            raise HTTPException(401, "this link was used before or is not ours; scan the code on the terminal again")
        try:
            row, label = await run_in_threadpool(self.store.add_device, message.device)
        except BaseException:
            self.access.return_invitation(message.invitation)
            raise
        token = self.access.open_session(row, label)
        session = self._session(token)
        self.events.joined(session)
        return JSONResponse({"session": token, **self._state(session)})

    async def rename(self, request: Request) -> Response:
        """A device is called otherwise from now on; its measurements are, too."""
        session = self._authorised(request)
        device = await _read(request, DeviceDescription, MAX_JOIN_BYTES)
        label = await run_in_threadpool(self.store.rename_device, session.device, device)
        if label is None:
            raise HTTPException(403, "this session belongs to another device")
        session.label = label
        self._revision += 1
        return JSONResponse(self._state(session))

    async def state(self, request: Request) -> Response:
        return JSONResponse(self._state(self._authorised(request)))

    async def board(self, request: Request) -> Response:
        """All results, or 204 if there is nothing newer than the revision ``since``."""
        self._authorised(request)
        revision = self._revision
        if request.query_params.get("since") == str(revision):
            return Response(status_code=204)
        if self._board[0] != revision:
            stored = await run_in_threadpool(self.store.measurements, tuple(self.offers))
            self._board = (revision, board(stored, self.offers))
        return JSONResponse({"revision": self._board[0], "rows": self._board[1]})

    async def model(self, request: Request) -> Response:
        """The file, an input for it, and what ONNX Runtime answers to that input."""
        self._authorised(request)
        offer = self.offers.get(request.path_params["model"])
        part = request.path_params["part"]
        if offer is None or part not in ("file", "images", "answer"):
            raise HTTPException(404, "no such model")
        if part != "file":
            content = offer.images if part == "images" else offer.answer
            return Response(content, media_type="application/octet-stream", headers={"Cache-Control": FOREVER})
        if not offer.is_unchanged:
            raise HTTPException(410, f"{offer.label} was replaced meanwhile; start vitrail bench again")
        return FileResponse(offer.path, media_type="application/octet-stream", headers={"Cache-Control": FOREVER})

    async def result(self, request: Request) -> Response:
        session = self._authorised(request)
        measurement = await _read(request, Measurement, MAX_RESULT_BYTES)
        if measurement.model not in self.offers:
            raise HTTPException(404, "no such model")
        if session.num_posts >= MAX_POSTS:
            raise HTTPException(403, f"this device has sent {MAX_POSTS} measurements, which is all that one may")
        added = await run_in_threadpool(self.store.add, session.device, measurement)
        if added is not None:
            session.num_posts += 1
            self._revision += 1
            self.events.measured(added)
        return JSONResponse({"stored": added is not None}, status_code=201 if added else 200)

    async def done(self, request: Request) -> Response:
        session = self._authorised(request)
        if not session.done:
            session.done = True
            self.events.done(session)
        return Response(status_code=204)

    async def trouble(self, _request: Request, error: Exception) -> Response:
        """The disk is full, or another process holds the database: the page keeps its results and tries again."""
        self.events.trouble(error)
        return JSONResponse({"error": "results cannot be stored at the moment"}, 503, {"Retry-After": "5"})

    def _state(self, session: DeviceSession) -> dict[str, Any]:
        return {
            "device": session.label,
            "ort": f"/ort/{self.assets.version}/",
            "plan": asdict(self.plan),
            "models": [
                {"id": offer.id, "label": offer.label, "size_bytes": offer.size_bytes, "shape": offer.shape}
                for offer in self.offers.values()
            ],
        }

    def _session(self, token: str) -> DeviceSession:
        session = self.access.session(token)
        if session is None:
            raise HTTPException(401, "this session is over; scan the code on the terminal again")
        return session

    def _authorised(self, request: Request) -> DeviceSession:
        """The session of a request, before anything else of it is read."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.access.session(token) is None:
            _limit(self.access.lets_in(_address(request)))
        session = self._session(token if scheme == "Bearer" else "")
        _limit(session.bucket.take())
        return session


async def _read(request: Request, kind: type[T], limit: int) -> T:
    """The body of a request as a message, refused as early as it can be."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise HTTPException(413, f"the message is larger than {limit} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the message took more than {BODY_SECONDS:.0f} s to arrive") from None
    except ClientDisconnect:
        raise HTTPException(400, "the message was cut short") from None
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"][:3])
        raise HTTPException(422, f"{place[:80]}: {first['msg'][:120]}".removeprefix(": ")) from None


def _limit(allowed: bool) -> None:
    if not allowed:
        raise HTTPException(429, "too many requests; try again in a few seconds", headers={"Retry-After": "2"})


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _file(path: Path, cache: str) -> Response:
    kind = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm", ".txt": "text/plain"}
    media = kind.get(path.suffix) or mimetypes.types_map.get(path.suffix, "text/plain")
    return FileResponse(path, media_type=media, headers={"Cache-Control": cache})


async def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=dict(error.headers or {}))


class _WithHeaders:
    """Every answer, errors included, carries :data:`HEADERS`; what may not be kept says so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        inner: Callable[[AsgiMessage], Awaitable[None]] = with_headers if scope["type"] == "http" else send
        await self.app(scope, receive, inner)
