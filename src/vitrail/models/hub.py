"""Weights files from the Hugging Face hub and from plain addresses, kept where those keep them."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch
from huggingface_hub import (
    HfFileMetadata,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vitrail.core.errors import CheckpointError, VitrailError
from vitrail.core.files import atomic_path, open_regular
from vitrail.core.progress import Seconds, Work

LOG = logging.getLogger(__name__)

SHA256 = re.compile("[0-9a-f]{64}")

ANSWER_SECONDS = 8.0
"""Longest time without an answer; then there is no network for us."""

LARGEST_BYTES = 16 * 2**30
"""No weights of ours are larger than a fifth of it."""

BLOCK_BYTES = 2**20

PATIENCE_SECONDS, LEAST_RATE = 60.0, 10_000
"""Seconds after which a download must have had so many bytes a second."""

TOO_MANY_REQUESTS = 429


def fetch_weights(address: str) -> Path:
    """The local copy of ``https://...`` or ``hf://owner/repository[@revision]/path``.

    Raises:
        CheckpointError: another kind of address, or it cannot be downloaded.
    """
    if address.startswith("hf://"):
        hub_id, revision, file = split_address(address)
        return fetch_from_hub(hub_id, file, revision)
    return _fetch_url(address)


def split_address(address: str) -> tuple[str, str, str]:
    """Repository, revision and file of ``hf://owner/repository[@revision]/path``.

    Raises:
        CheckpointError: one of them is missing.
    """
    owner, _, rest = address.removeprefix("hf://").partition("/")
    repository, _, file = rest.partition("/")
    repository, _, revision = repository.partition("@")
    if not (owner and repository and file):
        raise CheckpointError(f"weights {address} name no file; write hf://owner/repository/file")
    return f"{owner}/{repository}", revision or "main", file


def fetch_from_hub(hub_id: str, file: str, revision: str = "main", sha256: str | None = None) -> Path:
    """A file of a repository, from the hub's cache or from the hub, compared with its hash.

    ``HF_ENDPOINT``, ``HF_HUB_CACHE``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` have their usual meaning.

    Args:
        hub_id: ``owner/name``.
        file: path in the repository.
        revision: branch, tag or commit.
        sha256: hash of the file; None takes the hub's own record.

    Raises:
        CheckpointError: no such file, no network, or a damaged copy.
    """
    source = f"hf://{hub_id}/{file}" if revision == "main" else f"hf://{hub_id}@{revision}/{file}"
    try:
        answer = _ask_hub(hf_hub_url(hub_id, file, revision=revision))
        path = Path(hf_hub_download(hub_id, file, revision=revision, local_files_only=answer is None))
        expected = sha256 or _recorded_hash(path, answer)
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"cannot download {source}: the hub cannot be reached, or HF_HUB_OFFLINE is set, and the file is not in "
            "the cache; check the network, or download it elsewhere and pass the file"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise CheckpointError(
            f"cannot download {source}: the hub has no such file, or it is private; check the address, or set HF_TOKEN"
        ) from error
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"cannot download {source}: {reason}; check the address and the network") from error
    if expected is not None and _hash(path) != expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not {expected}; delete it to download it again")
    return path


def cached_file(hub_id: str, file: str, revision: str = "main") -> Path | None:
    """The copy of a file that is in the hub's cache; None without one. Nobody is asked."""
    found = try_to_load_from_cache(hub_id, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _ask_hub(url: str) -> HfFileMetadata | None:
    """What the hub knows of a file; None without an answer in :data:`ANSWER_SECONDS`.

    The hub's client alone would try again for a minute. It is asked in a thread, because nothing else ends a look-up of
    the hub's address.

    Raises:
        HfHubHTTPError: the hub refuses the file.
    """
    answers: list[HfFileMetadata | HfHubHTTPError] = []

    def ask() -> None:
        try:
            answers.append(get_hf_file_metadata(url, timeout=ANSWER_SECONDS))
        except HfHubHTTPError as error:
            if error.response.status_code < 500 and error.response.status_code != TOO_MANY_REQUESTS:
                answers.append(error)
        except Exception as error:  # noqa: BLE001 (the client has errors of its own for every trouble of the network)
            LOG.debug("%s: %s", url, error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    answer = answers[0] if answers else None
    if isinstance(answer, HfHubHTTPError):
        raise answer
    return answer


def _recorded_hash(path: Path, answer: HfFileMetadata | None) -> str | None:
    """SHA-256 as the hub recorded it: the name of the cached blob, or where that is no link, the hub's answer.

    None without an answer, and for small files, which the hub keeps in git under another kind of hash.
    """
    recorded = path.resolve().name if path.is_symlink() else answer.etag if answer else None
    return recorded if recorded is not None and SHA256.fullmatch(recorded) else None


def _hash(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_url(url: str) -> Path:
    try:
        parts = urlparse(url)
    except ValueError as error:
        raise CheckpointError(f"weights URL {url} is wrong: {error}; write https://host/file") from error
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise CheckpointError(f"weights URL {url} is not https; download it yourself and pass the file")
    address = hashlib.sha256(url.encode()).hexdigest()[:12]
    path = Path(torch.hub.get_dir()) / "vitrail" / f"{address}-{Path(parts.path).name}"
    if not path.exists():
        try:
            asked = Request(url, headers={"User-Agent": "vitrail"})
            with (
                urlopen(asked, timeout=ANSWER_SECONDS) as answer,
                atomic_path(path) as temporary,
                open(temporary, "wb") as file,
            ):
                _copy(answer, file, url)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, VitrailError):
                raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"cannot download {url}: {reason}; check the address and the network") from error
    return path


@runtime_checkable
class _Sent(Protocol):
    """What a server sends, as ``http.client.HTTPResponse`` has it.

    Attributes:
        length: number of bytes; None where the server does not say it.
    """

    length: int | None

    def read(self, size: int, /) -> bytes: ...


def _read(answer: _Sent, url: str) -> bytes:
    try:
        return answer.read(BLOCK_BYTES)
    except (OSError, HTTPException) as error:
        raise CheckpointError(f"cannot download {url}: {error}; check the network, and try again") from error


def _copy(answer: _Sent, file: BinaryIO, url: str, clock: Seconds = time.monotonic) -> None:
    """Write what a server sends, with the time that is left, and no more than weights have.

    Raises:
        CheckpointError: it sends too much, too slowly, or less than it said.
    """
    start, size = clock(), 0
    said = answer.length  # None where the server does not say it
    work = Work(f"Downloading {url.rpartition('/')[2]} (MB)", (said or 0) / 1e6, progress=said is not None)
    try:
        while block := _read(answer, url):
            size += file.write(block)
            work.advance(len(block) / 1e6)
            if size > LARGEST_BYTES or (said or 0) > LARGEST_BYTES:
                most = LARGEST_BYTES // 2**30
                raise CheckpointError(f"{url} has more than {most} GiB; download it yourself and pass the file")
            spent = clock() - start
            if spent > PATIENCE_SECONDS and size < LEAST_RATE * spent:
                raise CheckpointError(
                    f"{url} sends fewer than {LEAST_RATE // 1000} kB a second; try again later, or download it "
                    "yourself and pass the file"
                )
    finally:
        work.end()
    if said is not None and size < said:
        raise CheckpointError(f"{url} ended after {size} of {said} bytes; try again")
